/// What can go wrong in a decomposition.
public enum LinearAlgebraError: Error, Hashable, CustomStringConvertible {
    /// LAPACK reports that an iteration did not converge (info > 0).
    case notConverged(routine: String, order: Int, info: Int)
    /// LAPACK met a NaN or refuses an argument (info < 0).
    case illegalArgument(routine: String, order: Int, info: Int)
    /// A Cholesky factorisation met a matrix that is not positive definite: the pivot at `column` was not positive.
    case notPositiveDefinite(order: Int, column: Int)

    /// One line: routine, order, info.
    public var description: String {
        switch self {
        case .notConverged(let routine, let order, let info):
            "\(routine) did not converge on a matrix of order \(order) (info \(info))"
        case .illegalArgument(let routine, let order, let info):
            "\(routine) refused a matrix of order \(order) (info \(info)); it probably holds NaN or infinite numbers"
        case .notPositiveDefinite(let order, let column):
            "a matrix of order \(order) is not positive definite (pivot \(column))"
        }
    }
}
