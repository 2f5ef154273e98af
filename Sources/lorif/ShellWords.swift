/// A line of a shell as words: separated by spaces; '…' and "…" hold them together, a backslash takes the next character as it is.
///
/// Throws if a quotation does not end.
func shellWords(_ line: String) throws(UnfinishedQuotation) -> [String] {
    var words: [String] = []
    var word: String?
    var quote: Character?
    var isEscaped = false
    for character in line {
        if isEscaped {
            word = (word ?? "") + String(character)
            isEscaped = false
        } else if character == "\\", quote != "'" {
            word = word ?? ""
            isEscaped = true
        } else if character == quote {
            quote = nil
        } else if quote == nil, character == "'" || character == "\"" {
            word = word ?? ""
            quote = character
        } else if quote == nil, character.isWhitespace {
            if let whole = word { words.append(whole) }
            word = nil
        } else {
            word = (word ?? "") + String(character)
        }
    }
    if let quote { throw UnfinishedQuotation(quote: quote) }
    if isEscaped { throw UnfinishedQuotation(quote: "\\") }
    if let whole = word { words.append(whole) }
    return words
}

/// A quotation without end.
struct UnfinishedQuotation: Error, Equatable {
    let quote: Character
}

/// A word that `shellWords` reads as one again.
func shellQuoted(_ word: String) -> String {
    let isPlain = word.allSatisfy { $0.isLetter || $0.isNumber || "-_./:=+@%,".contains($0) }
    if isPlain, !word.isEmpty { return word }
    return "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
}
