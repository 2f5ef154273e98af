/// The λ of (H + λI)⁻¹, chosen when curvature is applied; it never needs a new fit.
public enum Damping: Hashable, Sendable, CustomStringConvertible {
    /// λ = ρ · tr(H)/D per group: ρ times the mean eigenvalue, zeros counted.
    case relative(Double)
    /// The same λ for every group.
    case absolute(Double)

    /// The kind and the number.
    public var description: String {
        switch self {
        case .relative(let ratio): "relative \(ratio)"
        case .absolute(let lambda): "absolute \(lambda)"
        }
    }

    /// λ for one group.
    ///
    /// A group without any gradient (tr(H) = 0) under relative damping has λ = 0 and takes no part in any score: nothing is
    /// known about how to weigh it. Otherwise λ must come out positive and finite.
    func lambda(trace: Double, gradientLength: Int) throws(CurvatureError) -> Double {
        let lambda: Double
        switch self {
        case .relative(let ratio):
            guard ratio > 0, ratio.isFinite else { throw .invalidDamping(damping: self, value: ratio) }
            if trace == 0 { return 0 }
            lambda = ratio * (trace / Double(gradientLength))
        case .absolute(let value): lambda = value
        }
        // 1/λ is what gets used, so a subnormal λ is as bad as zero.
        guard lambda > 0, lambda.isFinite, (1 / lambda).isFinite else {
            throw .invalidDamping(damping: self, value: lambda)
        }
        return lambda
    }
}
