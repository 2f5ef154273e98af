import Files
import Schema

/// The `config.json` of a Hugging Face model: its fields, and where they stand for messages.
///
/// Fields that the reader is not asked for are passed over, whatever they hold.
public struct ModelConfiguration: Sendable {
    /// The file.
    public let path: String
    /// Keys of the objects that this one is in, from outside; empty for the file's own object.
    let place: [String]
    private let fields: [String: MetadataValue]

    /// The longest file that is read: a thousand times the usual.
    static let byteLimit = 4 << 20

    /// Reads a file; throws where it is no JSON object.
    public init(path: String) throws(InterchangeError) {
        let bytes = try withInterchangeErrors {
            let file = try ReadableFile(path: path)
            guard file.byteCount <= Self.byteLimit else {
                throw InterchangeError.limitExceeded(
                    path: path, place: "the file", quantity: "bytes", limit: Self.byteLimit, found: file.byteCount)
            }
            return try file.read(at: 0, count: file.byteCount)
        }
        try self.init(bytes, path: path, place: [])
    }

    private init(_ bytes: [UInt8], path: String, place: [String]) throws(InterchangeError) {
        self.path = path
        self.place = place
        fields = try withInterchangeErrors {
            var reader = JSONReader(bytes)
            let fields = try JSONText.metadataFields(&reader)
            try reader.finish()
            return Dictionary(fields.map { ($0.name, $0.value) }) { first, _ in first }
        } locatingJSON: {
            .configurationNotJSON(path: path, offset: $0.offset, failure: $0)
        }
    }

    /// The object under a key; nil if there is none.
    func object(_ key: String) throws(InterchangeError) -> ModelConfiguration? {
        guard case .json(let text)? = fields[key], text.hasPrefix("{") else { return nil }
        return try ModelConfiguration(Array(text.utf8), path: path, place: place + [key])
    }

    /// The string under a key; nil if there is none, or null.
    func text(_ key: String) throws(InterchangeError) -> String? {
        switch fields[key] {
        case nil, .null?: return nil
        case .string(let text)?: return text
        case let other?: throw refusal(key, expected: "a string", found: JSONText.value(other))
        }
    }

    /// Whether the key is there, if only as null.
    func has(_ key: String) -> Bool { fields[key] != nil }

    /// The positive integer under a key; nil if there is none, or null.
    func count(_ key: String) throws(InterchangeError) -> Int? {
        switch fields[key] {
        case nil, .null?: return nil
        case .integer(let number)? where number > 0 && number <= 1 << 40: return Int(number)
        case let other?: throw refusal(key, expected: "a positive integer", found: JSONText.value(other))
        }
    }

    /// The flag under a key; nil if there is none, or null.
    func flag(_ key: String) throws(InterchangeError) -> Bool? {
        switch fields[key] {
        case nil, .null?: return nil
        case .boolean(let flag)?: return flag
        case let other?: throw refusal(key, expected: "true or false", found: JSONText.value(other))
        }
    }

    /// The array of integers under a key, negative ones included; empty if there is none.
    func numbers(_ key: String) throws(InterchangeError) -> [Int] {
        switch fields[key] {
        case nil, .null?: return []
        case .json(let text)?:
            let parts = text.dropFirst().dropLast().split(separator: ",")
            let numbers = parts.compactMap { Int($0) }
            guard text.hasPrefix("["), numbers.count == parts.count else {
                throw refusal(key, expected: "an array of integers", found: text)
            }
            return numbers
        case let other?: throw refusal(key, expected: "an array of integers", found: JSONText.value(other))
        }
    }

    /// The positive integer that must be there.
    func requiredCount(_ key: String) throws(InterchangeError) -> Int {
        guard let count = try count(key) else { throw refusal(key, expected: "a positive integer", found: "none") }
        return count
    }

    /// An error about one of the fields.
    func refusal(_ key: String, expected: String, found: String) -> InterchangeError {
        .configurationField(
            path: path, field: (place + [key]).joined(separator: "."), expected: expected, found: found)
    }
}
