import LinearAlgebra
import Schema
import Testing

import Scoring

/// The shape of one case; nil ranks mean dense rows and full queries.
struct ScoringShape: CustomTestStringConvertible {
    let d1, d2: Int
    let rank: Int?
    let rowCount, queryCount: Int
    let queryRank: Int?

    var testDescription: String {
        "\(d1)×\(d2), c \(rank ?? 0), \(rowCount) rows, \(queryCount) queries of rank \(queryRank ?? 0)"
    }

    func makeCase(seed: UInt64) -> ScoringCase {
        ScoringCase(
            d1: d1, d2: d2, rank: rank, rowCount: rowCount, queryCount: queryCount, queryRank: queryRank, seed: seed)
    }

    /// Corners by hand, then random ones.
    static let all: [ScoringShape] = {
        var shapes = [
            ScoringShape(d1: 1, d2: 1, rank: 1, rowCount: 1, queryCount: 1, queryRank: 1),
            ScoringShape(d1: 1, d2: 1, rank: nil, rowCount: 1, queryCount: 1, queryRank: nil),
            ScoringShape(d1: 9, d2: 1, rank: nil, rowCount: 5, queryCount: 3, queryRank: nil),
            ScoringShape(d1: 8, d2: 8, rank: 8, rowCount: 1, queryCount: 1, queryRank: nil),
            ScoringShape(d1: 3, d2: 17, rank: 3, rowCount: 7, queryCount: 70, queryRank: 2),
            ScoringShape(d1: 17, d2: 3, rank: 2, rowCount: 33, queryCount: 41, queryRank: nil),
            ScoringShape(d1: 16, d2: 16, rank: 1, rowCount: 300, queryCount: 2, queryRank: nil),
            ScoringShape(d1: 5, d2: 6, rank: 2, rowCount: 601, queryCount: 1, queryRank: 3),
            ScoringShape(d1: 32, d2: 24, rank: 1, rowCount: 70, queryCount: 5, queryRank: 4),
            ScoringShape(d1: 12, d2: 20, rank: nil, rowCount: 140, queryCount: 3, queryRank: nil),
            ScoringShape(d1: 4, d2: 4, rank: 2, rowCount: 259, queryCount: 70, queryRank: 4),
        ]
        var generator = SplitMix(seed: 99)
        for _ in 0..<30 {
            let d1 = Int.random(in: 1...12, using: &generator)
            let d2 = Int.random(in: 1...12, using: &generator)
            let rank = Int.random(in: 0...min(d1, d2), using: &generator)
            let queryRank = Int.random(in: 0...min(d1, d2), using: &generator)
            shapes.append(
                ScoringShape(
                    d1: d1, d2: d2, rank: rank == 0 ? nil : rank, rowCount: Int.random(in: 1...40, using: &generator),
                    queryCount: Int.random(in: 1...30, using: &generator),
                    queryRank: queryRank == 0 ? nil : queryRank))
        }
        return shapes
    }()
}

private func scores(_ scorer: LayerScorer, _ tile: LayerTile, startingAt start: Float = 0) -> [Float] {
    var scores = [Float](repeating: start, count: scorer.queryCount * tile.rowCount)
    var workspace = ScoringWorkspace()
    var span = scores.mutableSpan
    scorer.accumulate(tile, into: &span, workspace: &workspace)
    return scores
}

@Suite struct LayerScorerTests {
    init() { useOneBLASThread() }

    /// Every strategy, forced in turn, is the inner product of the definition.
    @Test(arguments: ScoringShape.all.indices)
    func everyStrategyAgreesWithTheDefinition(index: Int) {
        let shape = ScoringShape.all[index]
        let example = shape.makeCase(seed: UInt64(index))
        let (expected, norms) = example.scores()
        // Components may cancel in a row's norm, so the rank enters the bound, with slack for the sums' lengths.
        let slack = 2e-6 * Float(max(1, shape.rank ?? 1)) * Float(max(1, shape.queryRank ?? 1)).squareRoot()
        for strategy in LayerScorer.possibleStrategies(layer: example.layer, form: example.form) {
            // The usual sub-blocks, and ones so small that rows, queries and matrices are all taken in parts.
            for blockSize in [LayerScorer.BlockSize(), .init(rowCount: 24, numberCount: 300)] {
                let scorer = LayerScorer(
                    layer: example.layer, queryCount: example.queryCount, form: example.form, strategy: strategy,
                    blockSize: blockSize)
                let found = scores(scorer, example.tile)
                let worst = zip(found, zip(expected, norms)).map { abs(Double($0) - $1.0) / ($1.1 + 1e-3) }.max()
                #expect((worst ?? 0) <= Double(slack), "\(strategy): \(shape.testDescription)")
            }
        }
    }

    /// Scores are added to what is there, and a reused workspace leaves no trace.
    @Test func scoresAccumulate() {
        var workspace = ScoringWorkspace()
        for index in ScoringShape.all.indices {
            let example = ScoringShape.all[index].makeCase(seed: 7)
            for strategy in LayerScorer.possibleStrategies(layer: example.layer, form: example.form) {
                let scorer = LayerScorer(
                    layer: example.layer, queryCount: example.queryCount, form: example.form, strategy: strategy)
                let once = scores(scorer, example.tile)
                var twice = [Float](repeating: 0, count: once.count)
                var span = twice.mutableSpan
                scorer.accumulate(example.tile, into: &span, workspace: &workspace)
                #expect(twice == once)
                var again = twice.mutableSpan
                scorer.accumulate(example.tile, into: &again, workspace: &workspace)
                let worst = zip(once, twice).map { abs(2 * $0 - $1) - 1e-5 * abs($0) }.max() ?? 0
                // With several components the second round adds them one by one to a sum of other roundings.
                #expect(worst <= 1e-4, "\(strategy)")
            }
        }
    }

    @Test func theCheapestStrategyByCountedOperationsIsChosen() {
        func chosen(_ rank: Int?, _ queryCount: Int, _ queryRank: Int?) -> ScoringStrategy {
            let example = ScoringCase(
                d1: 16, d2: 24, rank: rank, rowCount: 2, queryCount: queryCount, queryRank: queryRank, seed: 1)
            let scorer = LayerScorer(layer: example.layer, queryCount: queryCount, form: example.form)
            let costs = LayerScorer.possibleStrategies(layer: example.layer, form: example.form).map {
                LayerScorer(layer: example.layer, queryCount: queryCount, form: example.form, strategy: $0)
                    .flops(rowCount: 10)
            }
            #expect(scorer.flops(rowCount: 10) == costs.min())
            return scorer.strategy
        }
        #expect(chosen(1, 1, 1) == .factorProducts)
        #expect(chosen(1, 1, nil) == .contraction)
        #expect(chosen(4, 20, nil) == .reconstruction)
        #expect(chosen(8, 20, 16) == .reconstruction)
        #expect(chosen(nil, 3, nil) == .denseProduct)
        #expect(chosen(nil, 3, 2) == .denseProduct)
        // 2 queries · 3 components of queries · 2 of rows · (16 + 24 products and one more) · 2 operations, 5 rows.
        let example = ScoringCase(d1: 16, d2: 24, rank: 2, rowCount: 2, queryCount: 2, queryRank: 3, seed: 1)
        #expect(LayerScorer(layer: example.layer, queryCount: 2, form: example.form).flops(rowCount: 5) == 4920)
    }

    @Test func noQueriesAndNoRowsAreNothing() {
        let none = ScoringCase(d1: 3, d2: 4, rank: 2, rowCount: 0, queryCount: 2, queryRank: nil, seed: 1)
        #expect(scores(LayerScorer(layer: none.layer, queryCount: 2, form: none.form), none.tile).isEmpty)
        let some = ScoringCase(d1: 3, d2: 4, rank: 2, rowCount: 3, queryCount: 0, queryRank: nil, seed: 1)
        #expect(scores(LayerScorer(layer: some.layer, queryCount: 0, form: some.form), some.tile).isEmpty)
    }

    /// Norms are those of the reconstructed matrices.
    @Test(arguments: ScoringShape.all.indices)
    func squaredNormsAgreeWithTheDefinition(index: Int) {
        let example = ScoringShape.all[index].makeCase(seed: UInt64(index + 1000))
        let norms = squaredNorms(of: example.tile)
        #expect(norms.count == example.tile.rowCount)
        for row in 0..<min(example.tile.rowCount, 50) {
            var expected = 0.0
            for a in 0..<example.layer.inputDimension {
                for b in 0..<example.layer.outputDimension {
                    let element = example.gradient(row, a, b)
                    expected += element * element
                }
            }
            #expect(abs(norms[row] - expected) <= 1e-10 * expected)
        }
    }

    /// Components that cancel exactly leave no negative norm.
    @Test func squaredNormsOfCancellingComponentsAreNotNegative() {
        var generator = SplitMix(seed: 4)
        let layer = LayerSchema(name: "l", inputDimension: 7, outputDimension: 5, form: .factors(rank: 2))
        let left = generator.gaussians(7 * 20)
        let right = generator.gaussians(5 * 20)
        let tile = LayerTile(layer: layer, rowCount: 20, left: left + left, right: right + right.map { -$0 })
        let norms = squaredNorms(of: tile)
        #expect(norms.allSatisfy { $0 >= 0 && $0 < 1e-10 })
    }
}
