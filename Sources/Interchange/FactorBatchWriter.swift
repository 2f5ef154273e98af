public import Checksum
import Kernels
public import Schema

/// Writes a factor batch, block by block: the inverse of `FactorBatch`.
public struct FactorBatchWriter: ~Copyable, Sendable {
    private let writer: SafetensorsWriter
    private let layers: [LayerSchema]
    /// Per layer: its first tensor.
    private let tensors: [Int]
    private let rowCount: Int

    /// Declares the batch: layers in vectorisation order, the type of their numbers (f32, f16, bf16), and one id per row.
    /// `basis` says that the numbers are in that whitening basis. Provenance keys must differ from `ids`, `layers`, `basis` and
    /// `lorif.batch`.
    public init(
        path: String, layers: [LayerSchema], elementType: ElementType, rowCount: Int, identifiers: [String]?,
        basis: Digest? = nil, provenance: [(key: String, value: String)] = []
    ) throws(InterchangeError) {
        precondition(identifiers.map { $0.count == rowCount } ?? true)
        var declarations: [TensorDeclaration] = []
        var tensors: [Int] = []
        for layer in layers {
            tensors.append(declarations.count)
            func declare(_ kind: String, _ rows: Int, _ columns: Int) {
                declarations.append(
                    TensorDeclaration(
                        name: layer.name + "/" + kind, elementType: elementType, shape: [rowCount, rows, columns]))
            }
            if let rank = layer.rank {
                declare("left", layer.inputDimension, rank)
                declare("right", layer.outputDimension, rank)
            } else {
                declare("full", layer.inputDimension, layer.outputDimension)
            }
        }
        var metadata = [(key: "lorif.batch", value: BatchLayout.supportedVersion)]
        metadata.append(("layers", JSONText.array(layers.map(\.name))))
        if let identifiers { metadata.append(("ids", JSONText.array(identifiers))) }
        if let basis { metadata.append(("basis", basis.description)) }
        writer = try SafetensorsWriter(path: path, tensors: declarations, metadata: metadata + provenance)
        self.layers = layers
        self.tensors = tensors
        self.rowCount = rowCount
    }

    /// Writes a tile's rows at `firstRow`; its layer must have the declared shape. Every row of every layer must be written once;
    /// different threads may write different tiles.
    public func write(_ tile: LayerTile, layer: Int, firstRow: Int) throws(InterchangeError) {
        let schema = layers[layer]
        precondition(tile.layer.form == schema.form && tile.layer.inputDimension == schema.inputDimension)
        precondition(tile.layer.outputDimension == schema.outputDimension)
        precondition(firstRow >= 0 && tile.rowCount <= rowCount - firstRow)
        let tensor = tensors[layer]
        guard let rank = schema.rank else {
            let first = firstRow * schema.gradientLength
            return try writer.write(tensor: tensor, firstElement: first, values: tile.dense.span)
        }
        let sides = [(tile.left, schema.inputDimension), (tile.right, schema.outputDimension)]
        for (side, (values, dimension)) in sides.enumerated() {
            var interleaved = [Float](repeating: 0, count: values.count)
            var span = interleaved.mutableSpan
            interleaveComponents(
                values.span, rowCount: tile.rowCount, dimension: dimension, rank: rank, into: &span)
            try writer.write(
                tensor: tensor + side, firstElement: firstRow * dimension * rank, values: interleaved.span)
        }
    }

    /// Makes the file durable and gives it its name.
    public consuming func finish() throws(InterchangeError) {
        try writer.finish()
    }
}
