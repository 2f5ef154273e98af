import Glibc
import Interchange
import LinearAlgebra
import Schema

/// The ranks that full gradients are factored to: by the layer's name, or by the energy to keep.
public enum RankChoice: Hashable, Sendable {
    /// For each layer the first pattern that matches it.
    case byPattern([RankPattern])
    /// For each layer the smallest rank that keeps this share of Σ‖G‖² over a sample.
    case energy(Double)
}

/// A glob over layer names and the rank of the layers that match.
public struct RankPattern: Hashable, Sendable {
    /// `*`, `?`, `[…]`; `*` crosses dots and slashes.
    public let glob: String
    /// c, cut to min(d1, d2); nil: the layer stays full.
    public let rank: Int?

    /// A pattern of these parts.
    public init(glob: String, rank: Int?) {
        self.glob = glob
        self.rank = rank
    }
}

extension RankChoice: ExpressibleByIntegerLiteral {
    /// One rank for all layers.
    public init(integerLiteral rank: Int) { self = .all(rank) }

    /// One rank for all layers.
    public static func all(_ rank: Int) -> RankChoice { .byPattern([RankPattern(glob: "*", rank: rank)]) }

    /// `2`, or `attn.*=2,mlp.*=full,*=1`; nil if it is neither.
    public init?(parsing text: String) {
        func rank(_ text: Substring) -> Int?? {
            if text == "full" { return .some(nil) }
            guard let rank = Int(text), (1...Limits.rank).contains(rank) else { return nil }
            return rank
        }
        if !text.contains("=") {
            guard case .some(let found) = rank(text[...]) else { return nil }
            self = .byPattern([RankPattern(glob: "*", rank: found)])
            return
        }
        var patterns: [RankPattern] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let sign = part.lastIndex(of: "="), sign > part.startIndex,
                case .some(let found) = rank(part[part.index(after: sign)...])
            else { return nil }
            patterns.append(RankPattern(glob: String(part[..<sign]), rank: found))
        }
        self = .byPattern(patterns)
    }
}

/// Ranks by layer, in the order of the layers; nil for a layer that stays full.
///
/// `sample` and `basis` are for an energy: the gradients that it is measured on, and the coordinates that it is measured in.
func chosenRanks(
    _ choice: RankChoice?, layers: [LayerSchema], sample: FactorBatch?, basis: SchemaBasis?
) throws -> [Int?] {
    switch choice {
    case nil:
        return layers.map { _ in nil }
    case .byPattern(let patterns):
        for pattern in patterns where !layers.contains(where: { fnmatch(pattern.glob, $0.name, 0) == 0 }) {
            throw EngineError.invalidRequest("--rank: '\(pattern.glob)' matches none of the \(layers.count) layers")
        }
        return try layers.map { layer in
            guard let pattern = patterns.first(where: { fnmatch($0.glob, layer.name, 0) == 0 }) else {
                throw EngineError.invalidRequest("--rank says nothing about layer '\(layer.name)': end it with '*=1'")
            }
            return pattern.rank.map { min($0, layer.inputDimension, layer.outputDimension) }
        }
    case .energy(let share):
        guard let sample else { throw EngineError.invalidRequest("--energy needs a batch of full gradients") }
        return try mapConcurrently(below: layers.count, workers: availableProcessorCount()) { index in
            try rank(holding: share, of: layers[index], in: sample, map: basis?.maps[index])
        }
    }
}

/// Rows of a sample whose spectra are looked at for an energy: the mean over more of them would not differ in a way that matters.
private let spectrumRowCount = 1024

private func rank(
    holding share: Double, of layer: LayerSchema, in sample: FactorBatch, map: LayerWhitening?
) throws -> Int {
    guard let position = sample.layers.firstIndex(where: { $0.name == layer.name }),
        sample.layers[position].form == .full
    else {
        throw EngineError.rankNotApplicable(
            path: sample.path, layer: layer.name,
            reason: "the energy of full gradients is wanted and the batch has none of this layer")
    }
    let (d1, d2) = (layer.inputDimension, layer.outputDimension)
    var sums = [Double](repeating: 0, count: min(d1, d2))
    let step = max(1, sample.rowCount / spectrumRowCount)
    for row in stride(from: 0, to: sample.rowCount, by: step) {
        var tile = try sample.readTile(layer: position, rows: row..<row + 1)
        if let map, sample.basis == nil { tile = map.apply(to: tile) }
        for (place, value) in try squaredSingularValueSums(of: tile.dense, count: 1, d1: d1, d2: d2).enumerated() {
            sums[place] += value
        }
    }
    return min(LinearAlgebra.rank(holding: share, of: sums), Limits.rank)
}
