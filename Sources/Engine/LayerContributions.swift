import Schema
import Scoring
import Store

/// What one layer, or a named group of layers, adds to a score.
public struct LayerContribution: Sendable {
    /// The layer's or the group's name.
    public let name: String
    /// Its part; all parts together are the score, up to rounding.
    public let score: Float

    /// A part of a score.
    public init(name: String, score: Float) {
        self.name = name
        self.score = score
    }
}

/// The parts of the scores of ranked examples.
struct LayerContributions {
    let rows: LiveRows
    let prepared: PreparedScan
    let selection: LayerSelection

    /// By query of the scan and ordinal. `scores` has the scores that the parts must add up to.
    func of(_ scores: [[Int: Float]]) throws -> [[Int: [LayerContribution]]] {
        let ordinals = Array(Set(scores.flatMap(\.keys))).sorted()
        guard !ordinals.isEmpty else { return scores.map { _ in [:] } }
        let winners = try rows.selecting(ordinals: ordinals)
        let schema = rows.snapshot.schema
        var parts: [[Float]] = []
        var workspace = ScoringWorkspace()
        for (position, layer) in prepared.layers.enumerated() {
            let tile = try winners.readTile(layer: layer)
            var products = [Float](repeating: 0, count: prepared.queryCount * ordinals.count)
            var span = products.mutableSpan
            prepared.scorers[position].accumulate(tile, into: &span, workspace: &workspace)
            parts.append(products)
        }
        let groups = reported(schema)
        let places = Dictionary(uniqueKeysWithValues: ordinals.enumerated().map { ($1, $0) })
        return scores.enumerated().map { query, wanted in
            var result: [Int: [LayerContribution]] = [:]
            for (ordinal, score) in wanted {
                guard let place = places[ordinal] else { preconditionFailure("every ordinal was read") }
                let products = parts.map { Double($0[query * ordinals.count + place]) }
                // Norms divide all layers alike.
                let total = products.reduce(0, +)
                let factor = total == 0 ? 0 : Double(score) / total
                result[ordinal] = groups.map { group in
                    LayerContribution(
                        name: group.name,
                        score: Float(factor * group.positions.reduce(0) { $0 + products[$1] }))
                }
            }
            return result
        }
    }

    /// Named groups in the order of the request, then the layers in none, with positions among the scanned layers.
    private func reported(_ schema: StoreSchema) -> [(name: String, positions: [Int])] {
        var groups = selection.groups.map { group in
            (name: group.name, positions: prepared.layers.indices.filter { group.layers.contains(prepared.layers[$0]) })
        }
        let grouped = Set(selection.groups.flatMap(\.layers))
        for (position, layer) in prepared.layers.enumerated() where !grouped.contains(layer) {
            groups.append((schema.layers[layer].name, [position]))
        }
        return groups.filter { !$0.positions.isEmpty }
    }
}
