/// Rows as the eigenbasis of one curvature group sees them: all that self-influence needs of them.
///
/// With eigenpairs (s²_k, v_k) of H, D numbers to a gradient g and p_k = v_k·g, the value is p_k / √(s²_k + tr(H)/D). On the rows
/// of the fit these numbers are of one size for every k, so that one scale for a row's codes does justice to all of them, and they fit into
/// f32 whatever the size of the gradients.
public struct EigenCoordinates: Sendable {
    /// r, the number of eigenpairs.
    public let rank: Int
    /// rows × rank, row-major.
    public var values: [Float]
    /// √(‖g‖² − Σ_k p²_k) of every row: the part of the gradient outside the basis. Kept by itself, since the difference of two
    /// rounded numbers would be noise.
    public var outsideNorms: [Float]

    /// Rows; `values` must have rank numbers for each of `outsideNorms`.
    public init(rank: Int, values: [Float], outsideNorms: [Float]) {
        precondition(values.count == rank * outsideNorms.count, "values are not rows × rank")
        self.rank = rank
        self.values = values
        self.outsideNorms = outsideNorms
    }

    /// How many rows there are.
    public var rowCount: Int { outsideNorms.count }

    /// The given rows, in the given order.
    public func selecting(_ rows: [Int]) -> EigenCoordinates {
        var selected: [Float] = []
        selected.reserveCapacity(rows.count * rank)
        for row in rows { selected.append(contentsOf: values[row * rank..<(row + 1) * rank]) }
        return EigenCoordinates(rank: rank, values: selected, outsideNorms: rows.map { outsideNorms[$0] })
    }
}
