import Checksum
import Foundation
import Interchange
import LinearAlgebra
import Schema
import Store

/// The layers, encoding and basis of a store (or segment) that is to be created.
struct StoreDesign {
    let schema: StoreSchema
    /// Where the basis is; nil for a store that keeps gradients as they are given.
    let storedBasis: StoredBasis?
    let basis: SchemaBasis?
    /// What to say about it.
    let notes: [String]
    /// A basis file that was made for this store, which copies it.
    private var temporaryPath: String?

    /// Decides everything that a new store at `path` needs: layers from `batch` (or from the basis), ranks and basis by choice.
    ///
    /// Call `discard` when the store has been created, or will not be.
    init(
        path: String, batch: FactorBatch?, rank: RankChoice?, encoding: Encoding, basis choice: BasisChoice,
        control: OperationControl
    ) throws {
        var sample = batch
        switch choice {
        case .ofBatches:
            storedBasis = try batch.flatMap { try StoredBasis(besideBatch: $0) }
            temporaryPath = nil
        case .existing(let source):
            storedBasis = try StoredBasis(path: basisPath(of: source))
            temporaryPath = nil
        case .whitening(let source, let epsilon):
            let moments = try FactorBatch(path: source)
            let found = try whiteningBasis(of: moments, epsilon: epsilon, control: control)
            let made = path + ".basis-\(UInt64.random(in: .min ... .max))"
            _ = try BasisFile.write(found, to: made, temporaryPath: made + ".writing")
            temporaryPath = made
            do { storedBasis = try StoredBasis(path: made) } catch {
                try? FileManager.default.removeItem(atPath: made)
                throw error
            }
            sample = moments
        }
        let decided: (schema: StoreSchema, basis: SchemaBasis?)
        do {
            decided = try Self.decide(
                batch: batch, sample: sample, rank: rank, encoding: encoding, storedBasis: storedBasis)
        } catch {
            if let temporaryPath { try? FileManager.default.removeItem(atPath: temporaryPath) }
            throw error
        }
        schema = decided.schema
        basis = decided.basis
        var notes: [String] = []
        if case .whitening = choice, let layers = storedBasis?.basis.layers {
            notes = layers.filter(\.isIdentity).map {
                "layer '\($0.name)' is zero in the whole sample: it stays as it is"
            }
        }
        self.notes = notes
    }

    func discard() {
        if let temporaryPath { try? FileManager.default.removeItem(atPath: temporaryPath) }
    }

    private static func decide(
        batch: FactorBatch?, sample: FactorBatch?, rank: RankChoice?, encoding: Encoding, storedBasis: StoredBasis?
    ) throws -> (StoreSchema, SchemaBasis?) {
        let shapes =
            batch?.layers.map(\.schema)
            ?? storedBasis?.basis.layers.map {
                LayerSchema(
                    name: $0.name, inputDimension: $0.inputDimension, outputDimension: $0.outputDimension, form: .dense)
            } ?? []
        let basis = try storedBasis.map { try SchemaBasis($0.basis, digest: $0.digest, layers: shapes) }
        if let batch {
            let probe = StoreSchema(layers: [], encoding: encoding, basis: basis?.digest)
            _ = try SchemaBasis.needed(for: batch, schema: probe, basis: basis)
        }
        let ranks = try chosenRanks(rank, layers: shapes, sample: sample, basis: basis)
        let layers = try zip(shapes, ranks).map { shape, chosen in
            var form = chosen.map { LayerForm.factors(rank: $0) } ?? .dense
            if let given = shape.rank {
                if rank != nil, chosen != given {
                    throw EngineError.rankNotApplicable(
                        path: batch?.path ?? "", layer: shape.name,
                        reason: "the rows are factors of rank \(given) already; --rank applies to full gradients")
                }
                form = shape.form
            }
            return LayerSchema(
                name: shape.name, inputDimension: shape.inputDimension, outputDimension: shape.outputDimension,
                form: form)
        }
        return (StoreSchema(layers: layers, encoding: encoding, basis: basis?.digest), basis)
    }
}

extension StoredBasis {
    /// The basis beside a batch whose gradients are in one: `X.basis` beside `X.safetensors`; nil for a batch of raw gradients.
    init?(besideBatch batch: FactorBatch) throws {
        guard let digest = batch.basis else { return nil }
        let companion = basisPath(of: batch.path)
        guard companion != batch.path, FileManager.default.fileExists(atPath: companion) else {
            throw EngineError.basisNotGiven(path: batch.path, digest: digest.description)
        }
        try self.init(path: companion)
        guard self.digest == digest else {
            throw EngineError.basisMismatch(
                path: batch.path, expected: self.digest.description, found: digest.description)
        }
    }
}

/// The basis file that is meant: the one beside an exported batch, or the path itself.
func basisPath(of path: String) -> String {
    path.hasSuffix(".safetensors") ? String(path.dropLast(".safetensors".count)) + ".basis" : path
}

/// Bytes of decoded gradients that are held at a time while moments are found, for each layer under way.
private let momentTileByteCount = 32 << 20

/// The two-sided whitening of every layer of a batch, by moments that it gives or that are found from its full gradients.
///
/// Throws `.whitening` for a layer that has neither, or that cannot be whitened. Memory: a tile and 2·(d1² + d2²) doubles for
/// each layer under way.
func whiteningBasis(
    of batch: FactorBatch, epsilon: Double, control: OperationControl
) throws -> WhiteningBasis {
    guard batch.basis == nil else {
        throw EngineError.basisMismatch(path: batch.path, expected: nil, found: batch.basis?.description)
    }
    for (index, layer) in batch.layers.enumerated() {
        let largest = max(layer.inputDimension, layer.outputDimension)
        guard largest <= Limits.whitenedDimension else {
            throw EngineError.whitening(
                path: batch.path, layer: layer.name,
                reason: "expected at most \(Limits.whitenedDimension) as d1 and d2, found \(largest)")
        }
        guard layer.form == .full || batch.hasSecondMoments(layer: index) else {
            throw EngineError.whitening(
                path: batch.path, layer: layer.name,
                reason: "expected full gradients, or second moments beside the factors, found factors alone: truncated "
                    + "gradients have lost what a whitening would weigh")
        }
    }
    let layers = try mapConcurrently(below: batch.layers.count, workers: availableProcessorCount()) { index in
        try control.cancellation.check()
        return try layerWhitening(of: batch, layer: index, epsilon: epsilon)
    }
    let isSampled = batch.layers.indices.contains { !batch.hasSecondMoments(layer: $0) }
    return WhiteningBasis(epsilon: epsilon, sampleCount: isSampled ? batch.rowCount : 0, layers: layers)
}

private func layerWhitening(of batch: FactorBatch, layer index: Int, epsilon: Double) throws -> LayerWhitening {
    let layer = batch.layers[index]
    let means: (left: [Double], right: [Double])
    if let given = try batch.readSecondMoments(layer: index) {
        means = given
    } else {
        var moments = SecondMoments(inputDimension: layer.inputDimension, outputDimension: layer.outputDimension)
        let rowsAtOnce = max(1, momentTileByteCount / (12 * layer.inputDimension * layer.outputDimension))
        for start in stride(from: 0, to: batch.rowCount, by: rowsAtOnce) {
            let rows = start..<min(batch.rowCount, start + rowsAtOnce)
            moments.add(try batch.readTile(layer: index, rows: rows).dense, count: rows.count)
        }
        means = moments.means
    }
    do throws(WhiteningFailure) {
        return try LayerWhitening(
            name: layer.name, inputDimension: layer.inputDimension, outputDimension: layer.outputDimension,
            leftMoment: means.left, rightMoment: means.right, epsilon: epsilon)
    } catch {
        throw EngineError.whitening(path: batch.path, layer: layer.name, reason: "\(error)")
    }
}
