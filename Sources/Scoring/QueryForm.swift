/// The queries' gradients at one layer.
public enum QueryForm: Sendable {
    /// Q × d1·d2: each query's matrix, row-major.
    case full([Float])
    /// Rank c_q pairs, gradient = Σ left_a right_aᵀ: `left` is Q × c_q × d1 and `right` Q × c_q × d2, each vector contiguous.
    case factors(rank: Int, left: [Float], right: [Float])
}

/// How a layer's rows meet its queries.
public enum ScoringStrategy: String, Hashable, Sendable, CaseIterable {
    /// Factored queries, factored rows: (Aᵀ U) ∘ (Bᵀ V), summed over the pairs of components.
    case factorProducts
    /// Full queries, factored rows: the query times one side, then a dot product with the other side, for each component.
    case contraction
    /// Full queries, factored rows: rows become matrices in cache, then one product with all queries.
    case reconstruction
    /// Full queries, dense rows: one product.
    case denseProduct
}
