import Foundation

/// A table of a page in Formats/.
struct PageTable {
    /// Rows as dictionaries from column title to cell.
    let rows: [[String: String]]

    /// The first table after a heading of that text.
    init(page: String, heading: String) throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "Formats/\(page)"), encoding: .utf8)
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false)[...]
        lines = lines.drop { $0.drop { $0 == "#" } != " \(heading)" }.dropFirst()
        lines = lines.drop { !$0.hasPrefix("|") }
        let table = lines.prefix { $0.hasPrefix("|") }.map { line in
            line.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false).map {
                $0.trimmingCharacters(in: .whitespaces)
            }
        }
        rows = table.dropFirst(2).map { Dictionary(uniqueKeysWithValues: zip(table[0], $0)) }
    }

    /// (offset, name, byte count) of each field of a table with offsets; the count of blobs, strings and lists is 0.
    var fields: [(offset: Int, name: String, byteCount: Int)] {
        rows.map { (Int($0["offset"] ?? "") ?? -1, $0["name"] ?? "", byteCount(ofType: $0["type"] ?? "")) }
    }
}

/// Bytes of a type as Formats/README.md names it, 0 if they vary.
func byteCount(ofType type: String) -> Int {
    switch type {
    case "u8": 1
    case "u16", "f16", "bf16": 2
    case "u32", "f32": 4
    case "u64", "f64": 8
    case "digest": 16
    case let list where list.hasPrefix("bytes[") && list.hasSuffix("]"): Int(list.dropFirst(6).dropLast()) ?? 0
    default: 0
    }
}

/// The little-endian bytes of a number.
func littleEndian(_ value: some FixedWidthInteger & UnsignedInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}
