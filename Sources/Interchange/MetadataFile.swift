import Files
import Schema

/// User metadata of a batch: a JSONL file, one object per example, matched to rows when it is opened and read again on demand.
///
/// Rows are matched
/// - by `id`, if the batch has ids: a string, or an integer whose decimal text is the id; ids of other batches are passed over;
/// - by row number, if the batch has no ids and the first object's `id` is one (an integer, or its decimal text);
/// - by order, otherwise: object k belongs to row k, there must be as many as rows, and an `id` is a field like any other.
///
/// Memory: 12 bytes per row. Opening reads and checks the whole file once, in pieces.
struct MetadataFile: Sendable {
    private enum Matching {
        case identifier(IdentifierIndex)
        case rowNumber
        case order
    }

    /// Rows that have metadata.
    let matchedRowCount: Int

    private let file: ReadableFile
    private let keepsIdentifier: Bool
    /// Per row: where its object starts in the file, and its length; length 0 is a row without metadata.
    private let offsets: [Int]
    private let lengths: [UInt32]

    init(path: String, rowCount: Int, index: IdentifierIndex?) throws(InterchangeError) {
        let file = try withInterchangeErrors { try ReadableFile(path: path) }
        var offsets = [Int](repeating: 0, count: rowCount)
        var lengths = [UInt32](repeating: 0, count: rowCount)
        var matching = index.map { Matching.identifier($0) }
        var objectCount = 0
        var matched = 0
        var lines = LineReader(file)
        while let line = try lines.next() {
            let identifier = try Self.identifier(line, lines.buffer, path: path)
            let rule = matching ?? (identifier.flatMap { Self.rowNumber($0) } == nil ? .order : .rowNumber)
            matching = rule
            let row: Int?
            switch rule {
            case .identifier(let index):
                row = index.row(of: try Self.text(identifier, line: line.number, path: path))
            case .rowNumber:
                row = try Self.requireRowNumber(identifier, line: line.number, path: path)
            case .order:
                row = objectCount
            }
            objectCount += 1
            guard let row, row < rowCount else { continue }
            guard lengths[row] == 0 else {
                throw .duplicateMetadata(
                    path: path, identifier: (try? Self.text(identifier, line: line.number, path: path)) ?? "\(row)",
                    firstLine: try Self.lineNumber(at: offsets[row], in: file), line: line.number)
            }
            offsets[row] = line.fileOffset
            lengths[row] = UInt32(line.range.count)
            matched += 1
        }
        if case .order? = matching {
            guard objectCount == rowCount else {
                throw .metadataRowCount(path: path, expected: rowCount, found: objectCount)
            }
            keepsIdentifier = true
        } else {
            keepsIdentifier = false
        }
        self.file = file
        self.offsets = offsets
        self.lengths = lengths
        matchedRowCount = matched
    }

    /// The objects of some rows, read in the order of the file; nil for a row without one.
    func records(rows: Range<Int>) throws(InterchangeError) -> [MetadataRecord?] {
        var records = [MetadataRecord?](repeating: nil, count: rows.count)
        let wanted = rows.filter { lengths[$0] > 0 }.sorted { offsets[$0] < offsets[$1] }
        var next = 0
        while next < wanted.count {
            // One read serves neighbours in the file, whatever the order of the rows.
            let start = offsets[wanted[next]]
            var end = start
            let first = next
            while next < wanted.count, offsets[wanted[next]] - end <= 16 << 10, end - start < 4 << 20 {
                end = offsets[wanted[next]] + Int(lengths[wanted[next]])
                next += 1
            }
            let piece = try withInterchangeErrors { try file.read(at: start, count: end - start) }
            for row in wanted[first..<next] {
                let begin = offsets[row] - start
                records[row - rows.lowerBound] = try record(
                    piece, begin..<begin + Int(lengths[row]), fileOffset: offsets[row])
            }
        }
        return records
    }

    private func record(
        _ bytes: [UInt8], _ range: Range<Int>, fileOffset: Int
    ) throws(InterchangeError) -> MetadataRecord {
        do {
            var reader = JSONReader(bytes, range: range)
            var fields = try JSONText.metadataFields(&reader)
            try reader.finish()
            if !keepsIdentifier { fields.removeAll { $0.name == "id" } }
            return MetadataRecord(fields: fields)
        } catch {
            // The line was correct when the file was opened.
            throw .metadataChanged(path: file.path, fileOffset: fileOffset)
        }
    }

    // MARK: Matching

    /// Checks a line; its `id`, if it has one.
    private static func identifier(
        _ line: LineReader.Line, _ buffer: [UInt8], path: String
    ) throws(InterchangeError) -> MetadataValue? {
        try withInterchangeErrors {
            var reader = JSONReader(buffer, range: line.range)
            var identifier: MetadataValue?
            let fieldCount = try JSONText.eachField(&reader) { (reader, name) throws(JSONFailure) in
                if name == "id" {
                    identifier = try reader.readValue()
                } else {
                    try reader.checkValue()
                }
            }
            try reader.finish()
            guard fieldCount <= Limits.metadataFieldCount else {
                throw InterchangeError.metadataFieldCount(
                    path: path, line: line.number, limit: Limits.metadataFieldCount, found: fieldCount)
            }
            return identifier
        } locatingJSON: {
            .metadataLine(
                path: path, line: line.number, column: $0.offset - line.range.lowerBound + line.firstColumn + 1,
                failure: $0)
        }
    }

    private static func text(
        _ identifier: MetadataValue?, line: Int, path: String
    ) throws(InterchangeError) -> String {
        switch identifier {
        case .string(let text)?: return text
        case .integer(let number)?: return String(number)
        case nil: throw .metadataIdentifier(path: path, line: line, expected: "an id", found: "none")
        case let other?:
            throw .metadataIdentifier(
                path: path, line: line, expected: "a string or an integer", found: JSONText.value(other))
        }
    }

    /// The row that an id written as a number means: an integer, or its decimal text without leading zeros.
    private static func rowNumber(_ identifier: MetadataValue) -> Int? {
        switch identifier {
        case .integer(let number) where number >= 0: Int(number)
        case .string(let text): Int(text).flatMap { $0 >= 0 && String($0) == text ? $0 : nil }
        default: nil
        }
    }

    private static func requireRowNumber(
        _ identifier: MetadataValue?, line: Int, path: String
    ) throws(InterchangeError) -> Int {
        guard let identifier, let row = rowNumber(identifier) else {
            throw .metadataIdentifier(
                path: path, line: line, expected: "a row number, as in the lines before (the batch has no ids)",
                found: identifier.map(JSONText.value) ?? "none")
        }
        return row
    }

    /// The number of the line that starts at an offset: only for messages, so that it need not be kept for every row.
    private static func lineNumber(at offset: Int, in file: ReadableFile) throws(InterchangeError) -> Int {
        var lines = LineReader(file)
        while let line = try lines.next() {
            if line.fileOffset == offset { return line.number }
        }
        throw .metadataChanged(path: file.path, fileOffset: offset)
    }
}
