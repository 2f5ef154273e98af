/// A way to score an example against a query; positive means that training on the example lowers the query's loss.
public enum Method: String, Sendable, CaseIterable {
    /// g_qᵀ (H + λI)⁻¹ g_i.
    case influence
    /// ⟨g_q, g_i⟩.
    case dot
    /// ⟨g_q, g_i⟩ / (‖g_q‖ ‖g_i‖), norms over the selected layers.
    case cosine
    /// ⟨g_q, g_i⟩ / ‖g_i‖: the one-sided cosine. Queries keep their weight against each other.
    case normalizedDot = "normalized-dot"
    /// −‖g_q − g_i‖: the nearest gradients first.
    case l2
    /// Σ_l ⟨g_q, g_i⟩_l / tr(H_l): every layer by its own scale. In a whitened store, where little curvature is left, nearly as
    /// good as influence, and without a fit.
    case whitenedDot = "whitened-dot"
    /// `whitenedDot` over both norms in the same inner product, Σ_l ‖g‖²_l / tr(H_l).
    case whitenedCosine = "whitened-cosine"
    /// g_iᵀ (H + λI)⁻¹ g_i: a property of the example, without a query.
    case selfInfluence = "self-influence"
    /// Influence divided by the square root of the example's self-influence (RelatIF).
    case relatif
    /// Influence divided by both square roots: the cosine in the metric (H + λI)⁻¹.
    case influenceCosine = "influence-cosine"

    /// Whether the score needs (H + λI)⁻¹.
    public var needsCurvature: Bool {
        switch self {
        case .influence, .selfInfluence, .relatif, .influenceCosine: true
        case .dot, .cosine, .normalizedDot, .l2, .whitenedDot, .whitenedCosine: false
        }
    }

    /// Whether the score needs query gradients.
    public var needsQueries: Bool { self != .selfInfluence }

    /// Whether the score needs ‖g_i‖.
    var needsRowNorms: Bool {
        switch self {
        case .cosine, .normalizedDot, .l2, .whitenedCosine: true
        case .influence, .dot, .whitenedDot, .selfInfluence, .relatif, .influenceCosine: false
        }
    }

    /// Whether the score needs ‖g_q‖.
    var needsQueryNorms: Bool { self == .cosine || self == .whitenedCosine || self == .l2 }

    /// Whether every layer counts by its own scale (`layerScales`).
    public var needsLayerScales: Bool { self == .whitenedDot || self == .whitenedCosine }

    /// Whether the score needs each example's self-influence.
    public var needsSelfInfluence: Bool { self == .selfInfluence || self == .relatif || self == .influenceCosine }

    /// Whether the sum of queries' scores is the score of one vector, the sum of their (normalised) gradients.
    var isLinearInQueries: Bool {
        switch self {
        case .influence, .dot, .cosine, .normalizedDot, .whitenedDot, .whitenedCosine, .relatif: true
        case .l2, .selfInfluence, .influenceCosine: false
        }
    }

    /// Whether a score is a sum over layers (times a factor of the whole pair).
    var isSumOverLayers: Bool { self != .l2 && self != .selfInfluence }
}
