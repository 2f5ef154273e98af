import Schema

/// What is wrong with a condition, and where.
public struct RowFilterError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The whole condition.
    public let text: String
    /// Character offset of the mistake.
    public let offset: Int
    /// What could have stood there.
    public let expected: String
    /// What does.
    public let found: String

    /// One line with the place marked by its offset.
    public var description: String {
        "--where \"\(text)\": at character \(offset + 1): expected \(expected), found \(found)"
    }
}

extension RowFilter {
    /// Parses a condition such as `source = 'bible' and (length > 64 or not author is null)`.
    ///
    /// Fields are bare words or in double quotes; texts in single quotes ('' for a quote); `and`, `or`, `not`, `in`, `like`,
    /// `is`, `null`, `true`, `false` in any case. `not` binds tighter than `and`, `and` tighter than `or`.
    public init(parsing text: String) throws(RowFilterError) {
        var parser = RowFilterParser(text)
        self = try parser.parseWhole()
    }
}

private struct RowFilterParser {
    private enum Token: Hashable {
        case word(String)
        case quotedField(String)
        case text(String)
        case number(MetadataValue)
        case symbol(String)
        case end
    }

    /// Nested parentheses and `not`s, so that a hostile condition cannot exhaust the stack.
    private static let maximumDepth = 200

    private let text: String
    private let characters: [Character]
    private var position = 0
    private var token = Token.end
    private var tokenOffset = 0

    init(_ text: String) {
        self.text = text
        characters = Array(text)
    }

    mutating func parseWhole() throws(RowFilterError) -> RowFilter {
        try advance()
        let filter = try parseOr(depth: 0)
        guard token == .end else { throw failure("'and', 'or' or the end") }
        return filter
    }

    private mutating func parseOr(depth: Int) throws(RowFilterError) -> RowFilter {
        var filter = try parseAnd(depth: depth)
        while isKeyword("or") {
            try advance()
            filter = .or(filter, try parseAnd(depth: depth))
        }
        return filter
    }

    private mutating func parseAnd(depth: Int) throws(RowFilterError) -> RowFilter {
        var filter = try parseNot(depth: depth)
        while isKeyword("and") {
            try advance()
            filter = .and(filter, try parseNot(depth: depth))
        }
        return filter
    }

    private mutating func parseNot(depth: Int) throws(RowFilterError) -> RowFilter {
        guard depth < Self.maximumDepth else { throw failure("at most \(Self.maximumDepth) levels of nesting") }
        if isKeyword("not") {
            try advance()
            return .not(try parseNot(depth: depth + 1))
        }
        if token == .symbol("(") {
            try advance()
            let filter = try parseOr(depth: depth + 1)
            try take(symbol: ")")
            return filter
        }
        return try parseComparison()
    }

    private mutating func parseComparison() throws(RowFilterError) -> RowFilter {
        let field = try parseField()
        if isKeyword("is") {
            try advance()
            let negated = isKeyword("not")
            if negated { try advance() }
            guard isKeyword("null") else { throw failure(negated ? "'null'" : "'null' or 'not null'") }
            try advance()
            return negated ? .not(.isNull(field: field)) : .isNull(field: field)
        }
        let negated = isKeyword("not")
        if negated { try advance() }
        if isKeyword("in") {
            try advance()
            try take(symbol: "(")
            var literals = [try parseLiteral()]
            while token == .symbol(",") {
                try advance()
                literals.append(try parseLiteral())
            }
            try take(symbol: ")")
            let filter = RowFilter.isOneOf(field: field, literals: literals)
            return negated ? .not(filter) : filter
        }
        if isKeyword("like") {
            try advance()
            guard case .text(let pattern) = token else { throw failure("a pattern in single quotes") }
            try advance()
            let filter = RowFilter.isLike(field: field, pattern: pattern)
            return negated ? .not(filter) : filter
        }
        guard !negated else { throw failure("'in' or 'like'") }
        guard case .symbol(let symbol) = token,
            let comparison = RowFilter.Comparison(rawValue: symbol == "<>" ? "!=" : (symbol == "==" ? "=" : symbol))
        else { throw failure("a comparison (=, !=, <, <=, >, >=), 'in', 'like' or 'is'") }
        try advance()
        return .compare(field: field, comparison: comparison, literal: try parseLiteral())
    }

    private mutating func parseField() throws(RowFilterError) -> String {
        switch token {
        case .word(let name) where !Self.keywords.contains(name.lowercased()):
            try advance()
            return name
        case .quotedField(let name):
            try advance()
            return name
        default:
            throw failure("a field name")
        }
    }

    private mutating func parseLiteral() throws(RowFilterError) -> MetadataValue {
        let value: MetadataValue
        switch token {
        case .text(let text): value = .string(text)
        case .number(let number): value = number
        case .word(let word) where word.lowercased() == "true": value = .boolean(true)
        case .word(let word) where word.lowercased() == "false": value = .boolean(false)
        default: throw failure("a text in single quotes, a number, true or false")
        }
        try advance()
        return value
    }

    private mutating func take(symbol: String) throws(RowFilterError) {
        guard token == .symbol(symbol) else { throw failure("'\(symbol)'") }
        try advance()
    }

    private static let keywords: Set<String> = ["and", "or", "not", "in", "like", "is", "null", "true", "false"]

    private func isKeyword(_ keyword: String) -> Bool {
        if case .word(let word) = token { word.lowercased() == keyword } else { false }
    }

    private mutating func advance() throws(RowFilterError) {
        while position < characters.count, characters[position].isWhitespace { position += 1 }
        tokenOffset = position
        guard position < characters.count else {
            token = .end
            return
        }
        let first = characters[position]
        if first == "'" || first == "\"" {
            token = first == "'" ? .text(try readQuoted(first)) : .quotedField(try readQuoted(first))
        } else if first.isNumber || ((first == "-" || first == "+" || first == ".") && nextIsNumber) {
            token = .number(try readNumber())
        } else if first.isLetter || first == "_" {
            token = .word(readWhile { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "." || $0 == "-" })
        } else {
            let two = String(characters[position..<min(position + 2, characters.count)])
            let symbol = ["<=", ">=", "!=", "<>", "=="].contains(two) ? two : String(first)
            token = .symbol(symbol)
            position += symbol.count
        }
    }

    private var nextIsNumber: Bool {
        position + 1 < characters.count && (characters[position + 1].isNumber || characters[position + 1] == ".")
    }

    private mutating func readWhile(_ condition: (Character) -> Bool) -> String {
        let start = position
        while position < characters.count, condition(characters[position]) { position += 1 }
        return String(characters[start..<position])
    }

    private mutating func readNumber() throws(RowFilterError) -> MetadataValue {
        let start = position
        position += 1
        while position < characters.count {
            let character = characters[position]
            let followsExponent = "eE".contains(characters[position - 1])
            guard
                character.isNumber || character == "." || "eE".contains(character)
                    || ("+-".contains(character) && followsExponent)
            else { break }
            position += 1
        }
        let text = String(characters[start..<position])
        if let integer = Int64(text) { return .integer(integer) }
        guard let number = Double(text), number.isFinite else {
            throw RowFilterError(text: self.text, offset: start, expected: "a number", found: "'\(text)'")
        }
        return .number(number)
    }

    private mutating func readQuoted(_ quote: Character) throws(RowFilterError) -> String {
        let start = position
        position += 1
        var result = ""
        while position < characters.count {
            let character = characters[position]
            position += 1
            guard character == quote else {
                result.append(character)
                continue
            }
            guard position < characters.count, characters[position] == quote else { return result }
            result.append(quote)
            position += 1
        }
        throw RowFilterError(text: text, offset: start, expected: "a closing \(quote)", found: "the end")
    }

    private func failure(_ expected: String) -> RowFilterError {
        let found =
            switch token {
            case .end: "the end"
            case .word(let word): "'\(word)'"
            case .quotedField(let name): "\"\(name)\""
            case .text(let text): "the text '\(text)'"
            case .number(.integer(let number)): "the number \(number)"
            case .number(let value): "the number \(value)"
            case .symbol(let symbol): "'\(symbol)'"
            }
        return RowFilterError(text: text, offset: tokenOffset, expected: expected, found: found)
    }
}
