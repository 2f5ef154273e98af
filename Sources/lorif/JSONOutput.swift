import Foundation

/// Prints a value as JSON with sorted keys, the machine-readable form of every report.
func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    standardOutput(String(decoding: try encoder.encode(value), as: UTF8.self) + "\n")
}
