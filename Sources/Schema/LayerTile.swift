/// A block of decoded rows of one layer, in f32: what storage hands to mathematics.
public struct LayerTile: Sendable {
    /// Whose rows they are.
    public let layer: LayerSchema
    /// Rows in the block.
    public let rowCount: Int
    /// Factors, component-major: element a of component k of row i at ((k · rowCount) + i) · d1 + a. Empty for a dense layer.
    public var left: [Float]
    /// Factors, component-major: element b of component k of row i at ((k · rowCount) + i) · d2 + b. Empty for a dense layer.
    public var right: [Float]
    /// A dense layer's rows: rowCount × (d1·d2), each matrix row-major. Empty for factors.
    public var dense: [Float]

    /// Factors; the counts must be rank · rowCount · d1 and rank · rowCount · d2.
    public init(layer: LayerSchema, rowCount: Int, left: [Float], right: [Float]) {
        guard let rank = layer.rank else { preconditionFailure("layer \(layer.name) is dense") }
        precondition(left.count == rank * rowCount * layer.inputDimension)
        precondition(right.count == rank * rowCount * layer.outputDimension)
        self.layer = layer
        self.rowCount = rowCount
        self.left = left
        self.right = right
        self.dense = []
    }

    /// Dense rows; the count must be rowCount · d1 · d2.
    public init(layer: LayerSchema, rowCount: Int, dense: [Float]) {
        precondition(layer.rank == nil && dense.count == rowCount * layer.gradientLength)
        self.layer = layer
        self.rowCount = rowCount
        self.left = []
        self.right = []
        self.dense = dense
    }
}
