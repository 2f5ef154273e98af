import Schema

/// Reads JSON (RFC 8259) from bytes that are not trusted, value by value and without building a tree.
///
/// Strict: no comments, no trailing commas, no NaN; strings must be valid Unicode. Nesting is counted and not recursed into, so
/// that no input can exhaust the stack. One pass, linear in the number of bytes.
struct JSONReader {
    /// Deepest nesting of arrays and objects: what the reference implementation of safetensors accepts.
    static let depthLimit = 128

    /// A place inside an array or object: whether a member has been read already.
    struct Cursor {
        fileprivate var isAtStart = true
    }

    private let bytes: [UInt8]
    private let end: Int
    /// The next byte to read.
    private(set) var offset: Int
    /// Where the key that was read last starts.
    private(set) var keyOffset = 0
    private var depth = 0

    /// Reads `bytes[range]`, by default all of them.
    init(_ bytes: [UInt8], range: Range<Int>? = nil) {
        let range = range ?? 0..<bytes.count
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
        self.bytes = bytes
        self.offset = range.lowerBound
        self.end = range.upperBound
    }

    // MARK: Structure

    mutating func beginObject() throws(JSONFailure) -> Cursor {
        skipWhitespace()
        guard peek() == UInt8(ascii: "{") else { throw unexpected("an object") }
        try descend()
        return Cursor()
    }

    /// The next key of the object, or nil at its end; the reader then stands before the value.
    mutating func nextKey(_ cursor: inout Cursor) throws(JSONFailure) -> String? {
        guard try nextMember(&cursor, closing: UInt8(ascii: "}"), kind: "object") else { return nil }
        guard peek() == UInt8(ascii: "\"") else { throw unexpected("a key in quotes") }
        keyOffset = offset
        let key = try readString()
        skipWhitespace()
        guard peek() == UInt8(ascii: ":") else { throw unexpected("a colon after the key") }
        offset += 1
        skipWhitespace()
        return key
    }

    mutating func beginArray() throws(JSONFailure) -> Cursor {
        skipWhitespace()
        guard peek() == UInt8(ascii: "[") else { throw unexpected("an array") }
        try descend()
        return Cursor()
    }

    /// Whether the array has another element; the reader then stands before it.
    mutating func nextElement(_ cursor: inout Cursor) throws(JSONFailure) -> Bool {
        try nextMember(&cursor, closing: UInt8(ascii: "]"), kind: "array")
    }

    /// Only whitespace may follow.
    mutating func finish() throws(JSONFailure) {
        skipWhitespace()
        guard offset == end else { throw unexpected("nothing after the value") }
    }

    private mutating func nextMember(
        _ cursor: inout Cursor, closing: UInt8, kind: String
    ) throws(JSONFailure) -> Bool {
        skipWhitespace()
        let next = peek()
        if next == closing {
            offset += 1
            depth -= 1
            return false
        }
        if cursor.isAtStart {
            cursor.isAtStart = false
            return true
        }
        guard next == UInt8(ascii: ",") else { throw unexpected("a comma or the end of the \(kind)") }
        offset += 1
        skipWhitespace()
        if peek() == closing { throw unexpected("another member after the comma") }
        return true
    }

    private mutating func descend() throws(JSONFailure) {
        guard depth < Self.depthLimit else { throw .tooDeep(offset: offset, limit: Self.depthLimit) }
        depth += 1
        offset += 1
    }

    // MARK: Values

    /// A word for the kind of the next value, for messages.
    mutating func kindOfNextValue() -> String {
        skipWhitespace()
        guard let byte = peek() else { return foundHere() }
        return switch byte {
        case UInt8(ascii: "{"): "an object"
        case UInt8(ascii: "["): "an array"
        case UInt8(ascii: "\""): "a string"
        case UInt8(ascii: "t"), UInt8(ascii: "f"): "a boolean"
        case UInt8(ascii: "n"): "null"
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): "a number"
        default: foundHere()
        }
    }

    /// Whether the next value is a string.
    mutating func isAtString() -> Bool {
        skipWhitespace()
        return peek() == UInt8(ascii: "\"")
    }

    mutating func readString() throws(JSONFailure) -> String {
        skipWhitespace()
        guard peek() == UInt8(ascii: "\"") else { throw unexpected("a string") }
        let start = offset
        offset += 1
        let first = offset
        let hasEscapes = try skipStringBody()
        let string =
            if hasEscapes {
                Self.text(try unescaped(first..<offset - 1))
            } else {
                Self.text(bytes, first..<offset - 1)
            }
        guard let string else { throw .notText(offset: start) }
        return string
    }

    /// A number written with digits only that fits `Int`; anything else is an error.
    mutating func readCount() throws(JSONFailure) -> Int {
        skipWhitespace()
        let start = offset
        let kind = kindOfNextValue()
        guard kind == "a number" else { throw unexpected("a non-negative integer") }
        let range = try skipNumber()
        var value = 0
        for index in range {
            let digit = Int(bytes[index]) - 48
            let (product, overflowed) = value.multipliedReportingOverflow(by: 10)
            let (sum, carried) = product.addingReportingOverflow(digit)
            guard (0...9).contains(digit), !overflowed, !carried else {
                throw .unexpected(
                    offset: start, expected: "a non-negative integer below 2^63",
                    found: String(decoding: bytes[range].prefix(40), as: UTF8.self))
            }
            value = sum
        }
        return value
    }

    /// Any value, as user metadata keeps it: an integer if written without fraction and exponent and within 64 bits, otherwise a
    /// double; arrays and objects as their text without insignificant whitespace.
    mutating func readValue() throws(JSONFailure) -> MetadataValue {
        skipWhitespace()
        switch peek() {
        case UInt8(ascii: "\""):
            return .string(try readString())
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            let range = try skipValue()
            return .json(compacted(range))
        case UInt8(ascii: "t"):
            try readWord("true")
            return .boolean(true)
        case UInt8(ascii: "f"):
            try readWord("false")
            return .boolean(false)
        case UInt8(ascii: "n"):
            try readWord("null")
            return .null
        default:
            return try number(skipNumber())
        }
    }

    /// Checks and passes a value as `readValue` would read it.
    mutating func checkValue() throws(JSONFailure) {
        skipWhitespace()
        switch peek() {
        case UInt8(ascii: "{"), UInt8(ascii: "["): _ = try skipValue()
        case UInt8(ascii: "\""): try skipString()
        case UInt8(ascii: "t"): try readWord("true")
        case UInt8(ascii: "f"): try readWord("false")
        case UInt8(ascii: "n"): try readWord("null")
        default:
            let range = try skipNumber()
            // Only an exponent, or hundreds of digits, can leave a double's range.
            if range.count > 300 || bytes[range].contains(where: { $0 | 0x20 == UInt8(ascii: "e") }) {
                _ = try number(range)
            }
        }
    }

    private func number(_ range: Range<Int>) throws(JSONFailure) -> MetadataValue {
        let digits = String(decoding: bytes[range], as: UTF8.self)
        if let integer = Int64(digits), digits != "-0" { return .integer(integer) }
        guard let number = Double(digits), number.isFinite else {
            throw .numberOutOfRange(offset: range.lowerBound, text: String(digits.prefix(40)))
        }
        return .number(number)
    }

    /// Checks and passes any value; the bytes that it takes.
    mutating func skipValue() throws(JSONFailure) -> Range<Int> {
        skipWhitespace()
        let start = offset
        // One entry per array or object that is open, at most `depthLimit`.
        var isObject: [Bool] = []
        var cursors: [Cursor] = []
        repeat {
            skipWhitespace()
            switch peek() {
            case UInt8(ascii: "{"):
                cursors.append(try beginObject())
                isObject.append(true)
            case UInt8(ascii: "["):
                cursors.append(try beginArray())
                isObject.append(false)
            case UInt8(ascii: "\""): try skipString()
            case UInt8(ascii: "t"): try readWord("true")
            case UInt8(ascii: "f"): try readWord("false")
            case UInt8(ascii: "n"): try readWord("null")
            default: _ = try skipNumber()
            }
            while let last = isObject.indices.last {
                let hasMore =
                    if isObject[last] {
                        try nextKey(&cursors[last]) != nil
                    } else {
                        try nextElement(&cursors[last])
                    }
                if hasMore { break }
                isObject.removeLast()
                cursors.removeLast()
            }
        } while !isObject.isEmpty
        return start..<offset
    }

    // MARK: Tokens

    private mutating func skipString() throws(JSONFailure) {
        let start = offset
        offset += 1
        let first = offset
        if try skipStringBody() {
            guard Self.text(try unescaped(first..<offset - 1)) != nil else { throw .notText(offset: start) }
        } else if (try? UTF8Span(validating: bytes.span.extracting(first..<offset - 1))) == nil {
            throw .notText(offset: start)
        }
    }

    /// Moves behind the closing quote; whether there were escapes.
    private mutating func skipStringBody() throws(JSONFailure) -> Bool {
        var hasEscapes = false
        var position = offset
        while position < end {
            let byte = bytes[position]
            if byte == UInt8(ascii: "\"") {
                offset = position + 1
                return hasEscapes
            }
            if byte == UInt8(ascii: "\\") {
                hasEscapes = true
                position += 1
            } else if byte < 0x20 {
                offset = position
                throw unexpected("a string without unescaped control characters")
            }
            position += 1
        }
        offset = end
        throw unexpected("a closing quote")
    }

    private static func text(_ bytes: [UInt8], _ range: Range<Int>? = nil) -> String? {
        guard let utf8 = try? UTF8Span(validating: bytes.span.extracting(range ?? 0..<bytes.count)) else { return nil }
        return String(copying: utf8)
    }

    private func unescaped(_ range: Range<Int>) throws(JSONFailure) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(range.count)
        var position = range.lowerBound
        while position < range.upperBound {
            let plain = position
            while position < range.upperBound, bytes[position] != UInt8(ascii: "\\") { position += 1 }
            result.append(contentsOf: bytes[plain..<position])
            if position == range.upperBound { break }
            position += 1
            // The body ends at an unescaped quote, so that an escape has at least one more byte.
            let escape = bytes[position]
            position += 1
            switch escape {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): result.append(escape)
            case UInt8(ascii: "b"): result.append(0x08)
            case UInt8(ascii: "f"): result.append(0x0C)
            case UInt8(ascii: "n"): result.append(0x0A)
            case UInt8(ascii: "r"): result.append(0x0D)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "u"):
                let scalar = try unicodeEscape(&position, limit: range.upperBound)
                result.append(contentsOf: String(Character(scalar)).utf8)
            default:
                throw .unexpected(
                    offset: position - 2, expected: "an escape sequence",
                    found: "a backslash before \(Self.shown(escape))")
            }
        }
        return result
    }

    /// Reads the digits after `\u`, and a second escape if the first is the high half of a pair.
    private func unicodeEscape(_ position: inout Int, limit: Int) throws(JSONFailure) -> Unicode.Scalar {
        let start = position - 2
        let high = try hexadecimal(&position, limit: limit)
        if let scalar = Unicode.Scalar(high) { return scalar }
        guard high < 0xDC00, position + 2 <= limit, bytes[position] == UInt8(ascii: "\\"),
            bytes[position + 1] == UInt8(ascii: "u")
        else { throw .notText(offset: start) }
        position += 2
        let low = try hexadecimal(&position, limit: limit)
        guard (0xDC00...0xDFFF).contains(low),
            let scalar = Unicode.Scalar(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
        else { throw .notText(offset: start) }
        return scalar
    }

    private func hexadecimal(_ position: inout Int, limit: Int) throws(JSONFailure) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard position < limit, let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue,
                bytes[position] < 0x80
            else {
                throw .unexpected(
                    offset: min(position, end), expected: "four hexadecimal digits",
                    found: position < limit ? Self.shown(bytes[position]) : "the end of the string")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }

    private mutating func skipNumber() throws(JSONFailure) -> Range<Int> {
        let start = offset
        if peek() == UInt8(ascii: "-") { offset += 1 }
        if peek() == UInt8(ascii: "0") {
            offset += 1
        } else {
            guard isAtDigit() else {
                if start < offset { throw unexpected("a digit") }
                throw unexpected("a JSON value")
            }
            skipDigits()
        }
        if peek() == UInt8(ascii: ".") {
            offset += 1
            guard isAtDigit() else { throw unexpected("a digit") }
            skipDigits()
        }
        if peek() == UInt8(ascii: "e") || peek() == UInt8(ascii: "E") {
            offset += 1
            if peek() == UInt8(ascii: "-") || peek() == UInt8(ascii: "+") { offset += 1 }
            guard isAtDigit() else { throw unexpected("a digit") }
            skipDigits()
        }
        return start..<offset
    }

    private func isAtDigit() -> Bool {
        guard let byte = peek() else { return false }
        return byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")
    }

    private mutating func skipDigits() {
        while isAtDigit() { offset += 1 }
    }

    private mutating func readWord(_ word: StaticString) throws(JSONFailure) {
        let expected = word.description
        guard end - offset >= expected.utf8.count,
            bytes[offset..<offset + expected.utf8.count].elementsEqual(expected.utf8)
        else { throw unexpected("a JSON value") }
        offset += expected.utf8.count
    }

    private mutating func skipWhitespace() {
        while offset < end {
            switch bytes[offset] {
            case 0x20, 0x09, 0x0A, 0x0D: offset += 1
            default: return
            }
        }
    }

    private func peek() -> UInt8? {
        offset < end ? bytes[offset] : nil
    }

    /// The text of a checked value, without whitespace between its tokens.
    private func compacted(_ range: Range<Int>) -> String {
        var result: [UInt8] = []
        result.reserveCapacity(range.count)
        var isInString = false
        var isEscaped = false
        for index in range {
            let byte = bytes[index]
            if isInString {
                if isEscaped {
                    isEscaped = false
                } else if byte == UInt8(ascii: "\\") {
                    isEscaped = true
                } else if byte == UInt8(ascii: "\"") {
                    isInString = false
                }
            } else if byte == UInt8(ascii: "\"") {
                isInString = true
            } else if byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D {
                continue
            }
            result.append(byte)
        }
        return String(decoding: result, as: UTF8.self)
    }

    // MARK: Messages

    private func unexpected(_ expected: String) -> JSONFailure {
        .unexpected(offset: offset, expected: expected, found: foundHere())
    }

    /// The word or byte at the reader's place.
    private func foundHere() -> String {
        guard let byte = peek() else { return "the end of the text" }
        let word = bytes[offset..<min(end, offset + 16)].prefix(while: Self.isLetterOrDigit)
        if word.count > 1 { return String(decoding: word, as: UTF8.self) }
        return Self.shown(byte)
    }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte | 0x20)
    }

    private static func shown(_ byte: UInt8) -> String {
        if byte > 0x20, byte < 0x7F { return "'\(Unicode.Scalar(byte))'" }
        let digits = String(byte, radix: 16, uppercase: true)
        return "byte 0x" + (digits.count < 2 ? "0" : "") + digits
    }
}
