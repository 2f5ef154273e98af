/// A way to score an example against a query; positive means that training on the example lowers the query's loss.
public enum Method: String, Sendable, CaseIterable {
    /// g_qᵀ (H + λI)⁻¹ g_i.
    case influence
    /// ⟨g_q, g_i⟩.
    case dot
    /// ⟨g_q, g_i⟩ / (‖g_q‖ ‖g_i‖), norms over the selected layers.
    case cosine
    /// Σ_l ⟨g_q, g_i⟩_l / tr(H_l): every layer by its own scale. In a whitened store, where little curvature is left, nearly as
    /// good as influence, and without a fit.
    case whitenedDot = "whitened-dot"
    /// `whitenedDot` over both norms in the same inner product, Σ_l ‖g‖²_l / tr(H_l).
    case whitenedCosine = "whitened-cosine"
    /// g_iᵀ (H + λI)⁻¹ g_i: a property of the example, without a query.
    case selfInfluence = "self-influence"
    /// Influence divided by the square root of the example's self-influence (RelatIF).
    case relatif

    /// Whether the score needs (H + λI)⁻¹.
    public var needsCurvature: Bool {
        switch self {
        case .influence, .selfInfluence, .relatif: true
        case .dot, .cosine, .whitenedDot, .whitenedCosine: false
        }
    }

    /// Whether the score needs query gradients.
    public var needsQueries: Bool { self != .selfInfluence }

    /// Whether inner products are divided by both norms.
    var isCosine: Bool { self == .cosine || self == .whitenedCosine }

    /// Whether every layer counts by its own scale (`layerScales`).
    var needsLayerScales: Bool { self == .whitenedDot || self == .whitenedCosine }

    /// Whether the score needs each example's self-influence.
    public var needsSelfInfluence: Bool { self == .selfInfluence || self == .relatif }
}
