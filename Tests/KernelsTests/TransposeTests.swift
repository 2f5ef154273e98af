import Kernels
import Testing

@Suite struct TransposeTests {
    @Test(arguments: [(1, 1, 1), (3, 4, 2), (5, 7, 3), (2, 1, 4), (0, 3, 2)])
    func componentsMoveApartAndTogether(rowCount: Int, dimension: Int, rank: Int) {
        let count = rowCount * dimension * rank
        let values = (0..<count).map { Float($0) }
        var apart = [Float](repeating: -1, count: count)
        var apartSpan = apart.mutableSpan
        transposeLastTwo(values.span, rowCount: rowCount, dimension: dimension, rank: rank, into: &apartSpan)
        for row in 0..<rowCount {
            for coordinate in 0..<dimension {
                for component in 0..<rank {
                    let from = (row * dimension + coordinate) * rank + component
                    #expect(apart[(component * rowCount + row) * dimension + coordinate] == values[from])
                }
            }
        }
        var together = [Float](repeating: -1, count: count)
        var togetherSpan = together.mutableSpan
        interleaveComponents(apart.span, rowCount: rowCount, dimension: dimension, rank: rank, into: &togetherSpan)
        #expect(together == values)
    }
}
