public import Checksum
import Files
import Kernels
public import Schema

/// One factor batch: the per-example gradients that a trainer wrote, checked and readable by rows.
///
/// Opening reads the header (and the user metadata beside the file) and checks everything but the numbers, which are checked as
/// they are read. Memory: ids, and about 12 bytes per row for user metadata; the numbers stay on disk. Safe to use from several threads.
public final class FactorBatch: Sendable {
    /// As it was given.
    public let path: String
    /// n, at least 1.
    public let rowCount: Int
    /// In vectorisation order, at least one.
    public let layers: [BatchLayer]
    /// One id per row, distinct; nil when the batch has none.
    public let identifiers: [String]?
    /// The whitening basis that the gradients are in already; nil: as the model gave them.
    public let basis: Digest?
    /// The other metadata of the file, in its order: model, checkpoint, projection seed …
    public let provenance: [(String, String)]
    /// The JSONL file with the examples' user metadata, when there is one.
    public let metadataPath: String?

    private let safetensors: SafetensorsFile
    private let layout: [BatchLayout.Layer]
    private let userMetadata: MetadataFile?

    /// Opens and checks a batch. User metadata come from `metadataPath`; if that is nil, from `X.jsonl` beside `X.safetensors`
    /// if it exists. Linear in the header and the metadata file.
    public init(path: String, metadataPath: String? = nil) throws(InterchangeError) {
        safetensors = try SafetensorsFile(path: path)
        let batch = try BatchLayout(safetensors)
        self.path = path
        rowCount = batch.rowCount
        layers = batch.layers.map(\.layer)
        identifiers = batch.identifiers
        basis = batch.basis
        provenance = batch.provenance
        layout = batch.layers
        let companion = if let metadataPath { metadataPath } else { try Self.companion(of: path) }
        self.metadataPath = companion
        userMetadata =
            if let companion {
                try MetadataFile(path: companion, rowCount: batch.rowCount, index: batch.index)
            } else {
                nil
            }
    }

    /// The file's length.
    public var byteCount: Int { safetensors.file.byteCount }

    /// Rows that have user metadata.
    public var metadataRowCount: Int { userMetadata?.matchedRowCount ?? 0 }

    /// The digest of the whole file, read in pieces of 8 MiB.
    public func digest() throws(InterchangeError) -> Digest {
        var hasher = DigestHasher()
        var offset = 0
        while offset < byteCount {
            let count = min(8 << 20, byteCount - offset)
            let piece = try withInterchangeErrors { try safetensors.file.read(at: offset, count: count) }
            hasher.update(piece.span.bytes)
            offset += count
        }
        return hasher.digest()
    }

    /// The gradients of some rows at one layer, widened to f32; reads only their bytes. A number that is not finite is an error.
    public func readTile(layer: Int, rows: Range<Int>) throws(InterchangeError) -> LayerTile {
        precondition(layers.indices.contains(layer) && rows.lowerBound >= 0 && rows.upperBound <= rowCount)
        let source = layout[layer]
        let first = try readRows(source.first, rows)
        guard let right = source.second else {
            return LayerTile(layer: source.layer.schema, rowCount: rows.count, dense: first)
        }
        let second = try readRows(right, rows)
        return LayerTile(
            layer: source.layer.schema, rowCount: rows.count,
            left: Self.componentMajor(first, rowCount: rows.count, shape: source.first.shape),
            right: Self.componentMajor(second, rowCount: rows.count, shape: right.shape))
    }

    /// The user metadata of some rows; nil for a row without any.
    public func metadata(rows: Range<Int>) throws(InterchangeError) -> [MetadataRecord?] {
        precondition(rows.lowerBound >= 0 && rows.upperBound <= rowCount)
        guard let userMetadata else { return Array(repeating: nil, count: rows.count) }
        return try userMetadata.records(rows: rows)
    }

    /// Whether the file gives the second moments of a layer.
    public func hasSecondMoments(layer: Int) -> Bool { layout[layer].moments != nil }

    /// C1 (d1×d1) and C2 (d2×d2) of a layer as the trainer gives them, row-major; nil if it does not. NaN and infinity are left
    /// to the caller.
    public func readSecondMoments(layer: Int) throws(InterchangeError) -> (left: [Double], right: [Double])? {
        guard let moments = layout[layer].moments else { return nil }
        return (try readMoment(moments.left), try readMoment(moments.right))
    }

    private func readMoment(_ tensor: TensorEntry) throws(InterchangeError) -> [Double] {
        let bytes = try withInterchangeErrors {
            try safetensors.file.read(at: tensor.byteRange.lowerBound, count: tensor.byteRange.count)
        }
        let size = tensor.elementType.byteCount
        return stride(from: 0, to: bytes.count, by: size).map { offset in
            let word = (0..<size).reduce(UInt64(0)) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
            return size == 8
                ? Double(bitPattern: word) : Double(Float(bitPattern: UInt32(truncatingIfNeeded: word)))
        }
    }

    private static func companion(of path: String) throws(InterchangeError) -> String? {
        let suffix = ".safetensors"
        guard path.hasSuffix(suffix) else { return nil }
        let candidate = String(path.dropLast(suffix.count)) + ".jsonl"
        return try withInterchangeErrors { try fileStatus(candidate) } == nil ? nil : candidate
    }

    /// Rows of a tensor as they are in the file, as f32.
    private func readRows(_ tensor: TensorEntry, _ rows: Range<Int>) throws(InterchangeError) -> [Float] {
        let rowLength = tensor.shape[1] * tensor.shape[2]
        let rowByteCount = rowLength * tensor.elementType.byteCount
        let start = tensor.byteRange.lowerBound + rows.lowerBound * rowByteCount
        let file = safetensors.file
        let values = try withInterchangeErrors {
            var values = [Float](repeating: 0, count: rows.count * rowLength)
            var span = values.mutableSpan
            if tensor.elementType == .f32 {
                var bytes = span.mutableBytes
                try file.read(at: start, into: &bytes)
            } else {
                let bytes = try file.read(at: start, count: rows.count * rowByteCount)
                if tensor.elementType == .f16 {
                    widen(float16: bytes.span.bytes, into: &span)
                } else {
                    widen(bfloat16: bytes.span.bytes, into: &span)
                }
            }
            return values
        }
        if let index = firstNonFiniteIndex(values.span) {
            let row = rows.lowerBound + index / rowLength
            let element = index % rowLength
            throw .notFinite(
                path: path, tensor: tensor.name, row: row, identifier: identifiers?[row],
                element: [row, element / tensor.shape[2], element % tensor.shape[2]],
                found: values[index].isNaN ? "NaN" : values[index] < 0 ? "-infinity" : "infinity")
        }
        return values
    }

    /// [n, d, c] to [c][n][d].
    private static func componentMajor(_ values: [Float], rowCount: Int, shape: [Int]) -> [Float] {
        if shape[2] == 1 { return values }
        var result = [Float](repeating: 0, count: values.count)
        var span = result.mutableSpan
        transposeLastTwo(values.span, rowCount: rowCount, dimension: shape[1], rank: shape[2], into: &span)
        return result
    }
}
