import Kernels
public import Schema

/// Exact scores of single rows, in Double: what decides about rows whose estimates are too close to tell.
///
/// A row's score depends on that row alone.
public struct RowRefiner: Sendable {
    private let layers: [LayerSchema]
    private let forms: [QueryForm]

    /// The queries' gradients at each layer, by position.
    public init(layers: [LayerSchema], forms: [QueryForm]) {
        precondition(layers.count == forms.count, "one form for each layer")
        self.layers = layers
        self.forms = forms
    }

    /// What one layer adds to the score of one row, a tile of one row. O(c · d1 · d2), or O(c · c_q · (d1 + d2)) for factors.
    public func product(query: Int, layer position: Int, row: LayerTile) -> Double {
        precondition(row.rowCount == 1, "one row at a time")
        let layer = layers[position]
        let (d1, d2) = (layer.inputDimension, layer.outputDimension)
        switch forms[position] {
        case .full(let matrices):
            let matrix = matrices.span.extracting(query * d1 * d2..<(query + 1) * d1 * d2)
            let right = (row.layer.rank == nil ? row.dense : row.right).map(Double.init)
            guard let rank = row.layer.rank else {
                let one: [Float] = [1]
                return bilinearForm(matrix, left: one.span, right: right.span, componentCount: 1)
            }
            return bilinearForm(matrix, left: row.left.span, right: right.span, componentCount: rank)
        case .factors(let queryRank, let left, let right):
            var sum = 0.0
            for pair in query * queryRank..<(query + 1) * queryRank {
                let (a, b) = (pair * d1, pair * d2)
                guard let rank = row.layer.rank else {
                    let wide = right[b..<b + d2].map(Double.init)
                    sum += bilinearForm(
                        row.dense.span, left: left.span.extracting(a..<a + d1), right: wide.span, componentCount: 1)
                    continue
                }
                for component in 0..<rank {
                    sum +=
                        doubleDot(left.span, from: a, row.left.span.extracting(component * d1..<(component + 1) * d1))
                        * doubleDot(
                            right.span, from: b, row.right.span.extracting(component * d2..<(component + 1) * d2))
                }
            }
            return sum
        }
    }
}
