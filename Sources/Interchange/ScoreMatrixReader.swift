public import Files

/// Reads rows of a NumPy file that `ScoreMatrixWriter` has written: one [queries, examples] matrix of `<f4`.
public struct ScoreMatrixReader: Sendable {
    private let file: ReadableFile
    private let dataStart: Int
    /// Columns of the matrix.
    public let exampleCount: Int

    /// Opens the file, which must have that many columns.
    public init(path: String, exampleCount: Int) throws(FileError) {
        file = try ReadableFile(path: path)
        let head = try file.read(at: 0, count: 10)
        dataStart = 10 + Int(head[8]) + Int(head[9]) << 8
        self.exampleCount = exampleCount
    }

    /// The scores of a query. O(examples).
    public func scores(query: Int) throws(FileError) -> [Float] {
        let bytes = try file.read(at: dataStart + 4 * query * exampleCount, count: 4 * exampleCount)
        let source = bytes.span.bytes
        return (0..<exampleCount).map { index in
            unsafe Float(
                bitPattern: UInt32(
                    littleEndian: source.unsafeLoadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)))
        }
    }
}
