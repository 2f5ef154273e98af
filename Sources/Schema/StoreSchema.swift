public import Checksum

/// What every row of a store has: its layers in vectorisation order, how their numbers are kept, and in which basis.
public struct StoreSchema: Hashable, Sendable {
    /// The layers, in the order of the global vectorisation; names are unique.
    public let layers: [LayerSchema]
    /// The encoding of factor and dense columns.
    public let encoding: Encoding
    /// The whitening basis (`WhiteningBasis`) that all gradients are in, by the digest of its file; nil: gradients as they were given.
    public let basis: Digest?

    /// A schema; `validate` (Format) says whether a store can have it.
    public init(layers: [LayerSchema], encoding: Encoding, basis: Digest? = nil) {
        self.layers = layers
        self.encoding = encoding
        self.basis = basis
    }

    /// The position of the layer of that name.
    public func layerIndex(named name: String) -> Int? {
        layers.firstIndex { $0.name == name }
    }

    /// D = Σ d1·d2 over all layers.
    public var gradientLength: Int { layers.reduce(0) { $0 + $1.gradientLength } }

    /// Numbers stored for one example over all layers.
    public var storedNumberCount: Int { layers.reduce(0) { $0 + $1.storedNumberCount } }

    /// Rows of a full block: the largest power of two whose rows fit in `Limits.blockBytes` as f32, from 32 to `Limits.blockRowCount`.
    public var rowsPerBlock: Int {
        var rows = Limits.blockRowCount
        while rows > 32, rows > Limits.blockBytes / (4 * max(1, storedNumberCount)) { rows /= 2 }
        return rows
    }
}
