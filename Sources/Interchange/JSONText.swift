public import Schema

/// Writes JSON deterministically: the same values give the same bytes.
public enum JSONText {
    /// The string with JSON's escapes and without quotes. Quote, backslash and control characters are escaped.
    public static func escaped(_ string: String) -> String {
        var result: [UInt8] = []
        appendEscaped(string, to: &result)
        return String(decoding: result, as: UTF8.self)
    }

    /// The string as a JSON value, in quotes.
    public static func quoted(_ string: String) -> String { "\"\(escaped(string))\"" }

    /// The shortest number that reads back as the same double, always with a fraction or an exponent, so that it stays a double.
    /// JSON has no NaN and no infinity: they become null.
    public static func number(_ value: Double) -> String { value.isFinite ? value.description : "null" }

    /// The shortest number that reads back as the same float; null for NaN and infinity.
    public static func number(_ value: Float) -> String { value.isFinite ? value.description : "null" }

    /// An array of strings.
    public static func array(_ strings: [String]) -> String {
        var result: [UInt8] = [UInt8(ascii: "[")]
        for (index, string) in strings.enumerated() {
            if index > 0 { result.append(contentsOf: ", ".utf8) }
            result.append(UInt8(ascii: "\""))
            appendEscaped(string, to: &result)
            result.append(UInt8(ascii: "\""))
        }
        result.append(UInt8(ascii: "]"))
        return String(decoding: result, as: UTF8.self)
    }

    /// One value of user metadata.
    public static func value(_ value: MetadataValue) -> String {
        switch value {
        case .null: "null"
        case .boolean(let flag): flag ? "true" : "false"
        case .integer(let integer): String(integer)
        case .number(let double): number(double)
        case .string(let string): quoted(string)
        case .json(let text): text
        }
    }

    /// User metadata as an object on one line, fields in their order; `leading` fields come first.
    public static func object(
        _ record: MetadataRecord, leading: [(name: String, value: MetadataValue)] = []
    ) -> String {
        let members = (leading + record.fields).map { "\(quoted($0.name)): \(value($0.value))" }
        return "{" + members.joined(separator: ", ") + "}"
    }

    /// The record that an object's text describes: the inverse of `object`. An `id` is a field like any other here.
    public static func record(_ text: String) throws(JSONFailure) -> MetadataRecord {
        var reader = JSONReader(Array(text.utf8))
        let fields = try metadataFields(&reader)
        try reader.finish()
        return MetadataRecord(fields: fields)
    }

    /// The strings of a JSON array of strings: the inverse of `array`.
    public static func strings(_ text: String) throws(JSONFailure) -> [String] {
        var reader = JSONReader(Array(text.utf8))
        var strings: [String] = []
        var cursor = try reader.beginArray()
        while try reader.nextElement(&cursor) { strings.append(try reader.readString()) }
        try reader.finish()
        return strings
    }

    /// The fields of the object at the reader's place; their names must differ.
    static func metadataFields(
        _ reader: inout JSONReader
    ) throws(JSONFailure) -> [(name: String, value: MetadataValue)] {
        var fields: [(name: String, value: MetadataValue)] = []
        _ = try eachField(&reader) { (reader, name) throws(JSONFailure) in
            fields.append((name, try reader.readValue()))
        }
        return fields
    }

    /// Hands out the fields of the object at the reader's place, whose names must differ; `body` must read or pass the value.
    /// The number of fields.
    static func eachField(
        _ reader: inout JSONReader, _ body: (inout JSONReader, String) throws(JSONFailure) -> Void
    ) throws(JSONFailure) -> Int {
        var names: [String] = []
        // Looking through a few names is faster than hashing them; a set keeps hostile objects linear.
        var manyNames: Set<String> = []
        var cursor = try reader.beginObject()
        while true {
            guard let name = try reader.nextKey(&cursor) else { return max(names.count, manyNames.count) }
            let isRepeated = manyNames.isEmpty ? names.contains(name) : !manyNames.insert(name).inserted
            guard !isRepeated else { throw .duplicateKey(offset: reader.keyOffset, key: name) }
            if manyNames.isEmpty { names.append(name) }
            if names.count == 16, manyNames.isEmpty { manyNames = Set(names) }
            try body(&reader, name)
        }
    }

    /// A string for an error message: quoted, control characters escaped, cut after about 120 bytes.
    static func excerpt(_ string: String) -> String {
        guard string.utf8.count > 120 else { return quoted(string) }
        return quoted(String(string.prefix(100)) + "…")
    }

    private static func appendEscaped(_ string: String, to result: inout [UInt8]) {
        for byte in string.utf8 {
            switch byte {
            case UInt8(ascii: "\""): result.append(contentsOf: "\\\"".utf8)
            case UInt8(ascii: "\\"): result.append(contentsOf: "\\\\".utf8)
            case 0x08: result.append(contentsOf: "\\b".utf8)
            case 0x09: result.append(contentsOf: "\\t".utf8)
            case 0x0A: result.append(contentsOf: "\\n".utf8)
            case 0x0C: result.append(contentsOf: "\\f".utf8)
            case 0x0D: result.append(contentsOf: "\\r".utf8)
            case 0..<0x20, 0x7F:
                let digits = String(byte, radix: 16)
                result.append(contentsOf: "\\u00\(digits.count < 2 ? "0" : "")\(digits)".utf8)
            default: result.append(byte)
            }
        }
    }
}
