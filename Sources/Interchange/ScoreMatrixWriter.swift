import Schema

/// Writes a [queries, examples] matrix of scores, or several of one shape, in any order and by pieces; never holds a matrix.
///
/// `.safetensors`: one F32 tensor `scores` and the metadata (see `Formats/scores.md`). `.npy`: the bare matrix, version 1.0, `<f4`,
/// C order. The file appears under its name when it is finished, replacing what was there.
public struct ScoreMatrixWriter: ~Copyable, Sendable {
    private let file: OutputFile
    private let queryCount: Int
    private let exampleCount: Int
    private let dataStart: Int

    /// Creates the temporary file and writes the header. `queryCount` counts the rows of all matrices, one matrix after another; with
    /// several the shape is [matrices, queries, examples]. The extension of `path` chooses the format. Lists in the metadata, such
    /// as `query_ids` and `example_ids`, are given as JSON text; keys are written in sorted order.
    public init(
        path: String, queryCount: Int, matrixCount: Int = 1, exampleCount: Int, metadata: [String: String]
    ) throws(InterchangeError) {
        precondition(queryCount >= 0 && exampleCount >= 0 && matrixCount > 0 && queryCount % matrixCount == 0)
        let shape = (matrixCount > 1 ? [matrixCount] : []) + [queryCount / matrixCount, exampleCount]
        let header: [UInt8]
        if path.hasSuffix(".safetensors") {
            header = SafetensorsWriter.header(
                tensors: [TensorDeclaration(name: "scores", elementType: .f32, shape: shape)],
                metadata: metadata.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
            guard header.count - 8 <= Limits.safetensorsHeaderBytes else {
                throw .limitExceeded(
                    path: path, place: "header", quantity: "bytes (a .npy file has no ids and no such limit)",
                    limit: Limits.safetensorsHeaderBytes, found: header.count - 8)
            }
        } else if path.hasSuffix(".npy") {
            header = Self.numpyHeader(shape: shape)
        } else {
            throw .unknownExtension(path: path)
        }
        file = try OutputFile(
            path: path, byteCount: header.count + 4 * queryCount * exampleCount, header: header)
        self.queryCount = queryCount
        self.exampleCount = exampleCount
        dataStart = header.count
    }

    /// Writes some columns of one row. Every score must be written exactly once; different threads may write different parts.
    public func write(query: Int, firstExample: Int, scores: Span<Float>) throws(InterchangeError) {
        precondition(query >= 0 && query < queryCount)
        precondition(firstExample >= 0 && scores.count <= exampleCount - firstExample)
        try file.write(scores.bytes, at: dataStart + 4 * (query * exampleCount + firstExample))
    }

    /// Makes the file durable and gives it its name. Every score must have been written.
    public consuming func finish() throws(InterchangeError) {
        try file.finish()
    }

    /// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html: magic, version, length, a Python literal padded with
    /// spaces to a multiple of 64 and ended by a line feed.
    private static func numpyHeader(shape: [Int]) -> [UInt8] {
        let extents = shape.map(String.init).joined(separator: ", ")
        let literal = "{'descr': '<f4', 'fortran_order': False, 'shape': (\(extents)), }"
        let unpadded = 10 + literal.utf8.count + 1
        let padding = (64 - unpadded % 64) % 64
        let length = literal.utf8.count + padding + 1
        return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(length & 0xFF), UInt8(length >> 8)] + Array(literal.utf8)
            + [UInt8](repeating: 0x20, count: padding) + [0x0A]
    }
}
