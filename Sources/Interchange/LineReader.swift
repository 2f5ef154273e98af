import Files
import Schema

/// The lines of a text file, one at a time, in bounded memory.
struct LineReader {
    /// One line, without its line feed, as a range of `buffer`.
    struct Line {
        let range: Range<Int>
        /// Where the line's range starts in the file.
        let fileOffset: Int
        /// From 1.
        let number: Int
        /// Where the range starts in the line, from 0: 3 after a byte order mark.
        let firstColumn: Int
    }

    private static let pieceByteCount = 1 << 20

    private let file: ReadableFile
    /// Valid for the ranges of the line that was read last.
    private(set) var buffer: [UInt8] = []
    private var bufferStart = 0
    private var position = 0
    private var lineNumber = 0

    init(_ file: ReadableFile) {
        self.file = file
    }

    /// The next line that is not blank; one longer than `Limits.metadataBytes` is an error.
    mutating func next() throws(InterchangeError) -> Line? {
        while let line = try nextLine() {
            let isBlank = buffer[line.range].allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }
            if !isBlank { return line }
        }
        return nil
    }

    private mutating func nextLine() throws(InterchangeError) -> Line? {
        var searched = position
        while true {
            if let feed = buffer[searched...].firstIndex(of: 0x0A) { return try line(position..<feed, next: feed + 1) }
            let pending = buffer.count - position
            let loaded = bufferStart + buffer.count
            guard loaded < file.byteCount else {
                return pending == 0 ? nil : try line(position..<buffer.count, next: buffer.count)
            }
            guard pending <= Limits.metadataBytes else {
                throw .metadataLineTooLong(path: file.path, line: lineNumber + 1, limit: Limits.metadataBytes)
            }
            let count = min(Self.pieceByteCount, file.byteCount - loaded)
            let piece = try withInterchangeErrors { try file.read(at: loaded, count: count) }
            bufferStart += position
            buffer.removeSubrange(..<position)
            buffer.append(contentsOf: piece)
            position = 0
            searched = pending
        }
    }

    private mutating func line(_ range: Range<Int>, next: Int) throws(InterchangeError) -> Line {
        lineNumber += 1
        guard range.count <= Limits.metadataBytes else {
            throw .metadataLineTooLong(path: file.path, line: lineNumber, limit: Limits.metadataBytes)
        }
        position = next
        let hasMark = lineNumber == 1 && buffer[range].starts(with: [0xEF, 0xBB, 0xBF])
        let firstColumn = hasMark ? 3 : 0
        return Line(
            range: range.lowerBound + firstColumn..<range.upperBound,
            fileOffset: bufferStart + range.lowerBound + firstColumn, number: lineNumber, firstColumn: firstColumn)
    }
}
