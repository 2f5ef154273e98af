import Checksum
import Interchange
import Kernels
import LinearAlgebra
import Schema
import Store

/// The coordinates that a new store keeps gradients in.
public enum BasisChoice: Hashable, Sendable {
    /// Those of the first batch: as given, or the basis that it says it is in.
    case ofBatches
    /// Whitened on both sides by the second moments of this batch, with this ε.
    case whitening(path: String, epsilon: Double)
    /// A basis file, an exported batch with its basis beside it, or another store.
    case existing(path: String)

    /// ε unless the caller says otherwise: of 0.01, 0.03, 0.1 and 0.3 the best or next to it on two retraining experiments.
    public static let defaultEpsilon = 0.03
}

/// A whitening basis, matched with the layers of a store.
struct SchemaBasis: Sendable {
    let digest: Digest
    /// In the order of the schema.
    let maps: [LayerWhitening]

    /// Every layer must be in the basis, in its shape.
    init(_ basis: WhiteningBasis, digest: Digest, layers: [LayerSchema]) throws(EngineError) {
        var byName: [String: LayerWhitening] = [:]
        for layer in basis.layers { byName[layer.name] = layer }
        var maps: [LayerWhitening] = []
        for layer in layers {
            guard let map = byName[layer.name], map.inputDimension == layer.inputDimension,
                map.outputDimension == layer.outputDimension
            else {
                throw .basisLayer(
                    digest: digest, layer: layer.name, dimensions: [layer.inputDimension, layer.outputDimension],
                    found: byName[layer.name].map { [$0.inputDimension, $0.outputDimension] })
            }
            maps.append(map)
        }
        self.digest = digest
        self.maps = maps
    }

    /// The basis of a snapshot, if a batch needs it: one that is given in raw coordinates. nil otherwise.
    init?(of snapshot: Snapshot, for batches: [FactorBatch]) throws {
        guard let digest = snapshot.schema.basis, batches.contains(where: { $0.basis == nil }),
            let basis = try snapshot.readBasis()
        else { return nil }
        try self.init(basis, digest: digest, layers: snapshot.schema.layers)
    }

    /// What has to be done with a batch's gradients for a store of that schema: nil when they are in its coordinates already.
    static func needed(
        for batch: FactorBatch, schema: StoreSchema, basis: SchemaBasis?
    ) throws(EngineError) -> SchemaBasis? {
        if batch.basis == schema.basis { return nil }
        guard batch.basis == nil, let basis, basis.digest == schema.basis else {
            throw .basisMismatch(
                path: batch.path, expected: schema.basis?.description, found: batch.basis?.description)
        }
        return basis
    }

    /// A tile of a batch in whitened coordinates; `layer` is its place in the schema.
    func apply(to tile: LayerTile, layer: Int, path: String, firstRow: Int) throws(EngineError) -> LayerTile {
        let result = maps[layer].apply(to: tile)
        let sides = [
            (result.left, tile.layer.inputDimension), (result.right, tile.layer.outputDimension),
            (result.dense, tile.layer.gradientLength),
        ]
        for (values, length) in sides {
            guard let index = firstNonFiniteIndex(values.span) else { continue }
            throw .whitenedOverflow(path: path, layer: tile.layer.name, row: firstRow + index / length % tile.rowCount)
        }
        return result
    }
}
