import Foundation

/// Prints a value as JSON with sorted keys, the machine-readable form of every report.
func printJSON(_ value: some Encodable) throws {
    standardOutput(try jsonText(value))
}

/// A value as JSON, ended by a line feed.
func jsonText(_ value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(value), as: UTF8.self) + "\n"
}
