/// Σ‖G‖² and what factoring lost of it, by layer.
struct EnergyTally {
    private var given: [Double]
    private var lost: [Double]

    init(layerCount: Int) {
        given = Array(repeating: 0, count: layerCount)
        lost = given
    }

    mutating func add(_ tiles: [FactoredTile]) {
        for (layer, tile) in tiles.enumerated() {
            given[layer] += tile.energy
            lost[layer] += tile.lostEnergy
        }
    }

    /// Layers that were factored here, with the share of their energy that is kept.
    var keptShares: [(layer: Int, share: Double)] {
        given.indices.filter { given[$0] > 0 }.map { ($0, 1 - lost[$0] / given[$0]) }
    }

    /// The same over all of them; nil when nothing was factored.
    var keptShare: Double? {
        let total = given.reduce(0, +)
        return total > 0 ? 1 - lost.reduce(0, +) / total : nil
    }
}
