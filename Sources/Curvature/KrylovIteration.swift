import LinearAlgebra

/// Block Krylov iteration with full orthogonalisation and thick restarts: the largest eigenpairs of a symmetric positive
/// semidefinite operator H of which only products H·X are needed.
///
/// Keeps an orthonormal basis Q and T = Q H Qᵀ, extends Q by the part of H·Q_new that is orthogonal to it, and takes Ritz pairs of T; when Q
/// is full it is replaced by its leading Ritz vectors. Musco and Musco 2015 (randomised block Krylov), Wu and Simon 2000 (thick restart).
/// With one restart per step it is a locally optimal block iteration, never worse than plain subspace iteration (Halko, Martinsson, Tropp 2011)
/// at the same number of products.
struct KrylovIteration {
    let widths: [Int]
    /// Pairs wanted.
    let count: Int
    let sizes: KrylovSizes
    let seed: UInt64
    let workers: Int
    /// Most applications of H.
    let applicationLimit: Int
    /// Stop once every wanted pair's residual ‖H v − θ v‖ is at most this share of the largest θ …
    let residualTolerance: Double
    /// … or once Σ θ over the wanted pairs is short of its limit by no more than this share, as its last two changes a, b foretell:
    /// the changes shrink at least geometrically (the more the larger the basis), so what is to come is at most b·(b/a)/(1 − b/a).
    let energyTolerance: Double
    /// Once converged, try a fresh random block before believing it: copies of a repeated eigenvalue beyond the block's size are
    /// invisible to one Krylov sequence. Costs a few applications.
    let confirms: Bool
    /// Whether Ritz pairs are taken after every application. Where an application is cheap, their eigenproblem is what costs:
    /// then they are taken only when the basis is full.
    let examinesEveryStep: Bool
    /// Told the Double operations of every step, applications of H not counted.
    var countOperations: (Double) -> Void = { _ in }

    struct Outcome {
        /// Descending; at most `count`, fewer if H has a smaller rank.
        let values: [Double]
        let vectors: RowVectors
        let applications: Int
        let converged: Bool
    }

    /// `apply` returns H·X for the rows X.
    func run(
        _ apply: (RowVectors) throws(CurvatureError) -> RowVectors
    ) throws(CurvatureError) -> Outcome {
        let length = widths.reduce(0, +)
        var basis = RowVectors(widths: widths)
        basis.reserve(rowCount: sizes.basisRows)
        var projected: [Double] = []
        var ritz = SymmetricEigen<Double>(order: 0, values: [], vectors: [])
        var fresh = try newDirections(
            beyond: basis, from: .random(widths: widths, rowCount: sizes.blockRows, seed: seed), scale: 0)
        var applications = 0
        var randomBlocks: UInt64 = 1
        var energy = 0.0
        var lastChange = 0.0
        var size = 0.0
        var confirmedEnergy: Double? = nil
        var converged = false
        var untilExamined = 0

        while fresh.rowCount > 0 {
            if basis.rowCount + fresh.rowCount > sizes.basisRows {
                restart(&basis, &projected, ritz: ritz, room: fresh.rowCount)
            }
            let image = try apply(fresh)
            applications += 1
            let old = basis.rowCount
            basis.append(fresh)
            let coefficients = basis.products(with: image, workers: workers)
            projected = extended(projected, order: old, by: coefficients, count: fresh.rowCount)
            let order = basis.rowCount
            var remainder = image
            remainder.subtract(basis, coefficients: coefficients, workers: workers)
            countOperations(4 * Double(order) * Double(fresh.rowCount) * Double(length))
            if order == length { converged = true }

            untilExamined -= 1
            let isDue =
                examinesEveryStep || untilExamined == 0 || fresh.rowCount < sizes.blockRows || order == length
                || order + sizes.blockRows > sizes.basisRows || applications >= applicationLimit
            var settled = false
            if isDue {
                let whole = projected
                ritz = try decompose { () throws(LinearAlgebraError) in try symmetricEigen(whole, order: order) }
                countOperations(10 * Double(order) * Double(order) * Double(order))
                size = max(0, ritz.values.first ?? 0)
                let wanted = min(count, order)
                let newEnergy = ritz.values.prefix(wanted).reduce(0, +)
                let change = abs(newEnergy - energy)
                // The first change is from nothing: it takes three applications to see two.
                let ratio = applications > 2 && lastChange > 0 ? change / lastChange : 1
                let missing =
                    applications > 1 && change == 0 ? 0 : ratio < 1 ? change * ratio / (1 - ratio) : .infinity
                (energy, lastChange) = (newEnergy, change)
                let enough = wanted == count || order == length
                settled =
                    enough
                    && (largestResidual(remainder, ritz: ritz, old: old, wanted: wanted) <= residualTolerance * size
                        || missing <= energyTolerance * energy)
            }
            if settled {
                if !confirms || confirmedEnergy.map({ energy - $0 <= residualTolerance * max(energy, $0) }) ?? false {
                    converged = true
                }
            }
            if converged || applications >= applicationLimit { break }

            if settled {
                confirmedEnergy = energy
                fresh = RowVectors(widths: widths)
            } else {
                fresh = try newDirections(beyond: basis, from: remainder, scale: size)
            }
            if fresh.rowCount == 0 {
                // Restarts need the pairs of the whole basis.
                if !isDue {
                    let whole = projected
                    ritz = try decompose { () throws(LinearAlgebraError) in try symmetricEigen(whole, order: order) }
                }
                // An invariant subspace; the rest of the space may hold more.
                let random = RowVectors.random(
                    widths: widths, rowCount: min(sizes.blockRows, length - basis.rowCount),
                    seed: seed &+ randomBlocks)
                randomBlocks += 1
                fresh = try newDirections(beyond: basis, from: random, scale: 0)
                // A few applications show what a random block has of a missing eigenvector.
                untilExamined = 3
            }
        }
        let wanted = min(count, basis.rowCount)
        return Outcome(
            values: Array(ritz.values.prefix(wanted)),
            vectors: basis.combined(
                Array(ritz.vectors.prefix(wanted * basis.rowCount)), count: wanted, workers: workers),
            applications: applications, converged: converged)
    }

    /// An orthonormal basis of what `candidates` add to the span of `basis`. `scale` is the size of H: what is smaller than
    /// its rounding error adds nothing.
    private func newDirections(
        beyond basis: RowVectors, from candidates: RowVectors, scale: Double
    ) throws(CurvatureError) -> RowVectors {
        var rows = candidates
        for round in 0..<3 where rows.rowCount > 0 {
            let coefficients = basis.products(with: rows, workers: workers)
            countOperations(
                8 * Double(rows.rowCount) * Double(basis.length) * Double(basis.rowCount + 2 * rows.rowCount))
            // Orthonormal rows without a part inside the basis: no more to do.
            if round > 0, !coefficients.contains(where: { abs($0) > 1e-10 }) { break }
            rows.subtract(basis, coefficients: coefficients, workers: workers)
            rows = try rows.orthonormalized(threshold: round == 0 ? scale * 1e-14 : 0.1, workers: workers)
        }
        let room = min(rows.rowCount, basis.length - basis.rowCount)
        guard room < rows.rowCount else { return rows }
        let first = (0..<(room * rows.rowCount)).map { $0 / rows.rowCount == $0 % rows.rowCount ? 1.0 : 0.0 }
        return rows.combined(first, count: room, workers: workers)
    }

    /// Replaces the basis by its leading Ritz vectors.
    private func restart(
        _ basis: inout RowVectors, _ projected: inout [Double], ritz: SymmetricEigen<Double>, room: Int
    ) {
        let keep = min(basis.rowCount, max(1, min(sizes.basisRows - room, count + max(count / 4, sizes.blockRows / 2))))
        countOperations(2 * Double(keep) * Double(basis.rowCount) * Double(basis.length))
        basis.rotate(
            Array(ritz.vectors.prefix(keep * basis.rowCount)), count: keep, capacity: sizes.basisRows, workers: workers)
        projected = [Double](repeating: 0, count: keep * keep)
        for k in 0..<keep { projected[k * keep + k] = ritz.values[k] }
    }

    /// T with the new rows and columns; `coefficients` is (order + count) × count.
    private func extended(_ matrix: [Double], order: Int, by coefficients: [Double], count: Int) -> [Double] {
        let size = order + count
        var result = [Double](repeating: 0, count: size * size)
        for row in 0..<order {
            for column in 0..<order { result[row * size + column] = matrix[row * order + column] }
        }
        for row in 0..<size {
            for column in 0..<count {
                let value = coefficients[row * count + column]
                if row < order {
                    result[row * size + order + column] = value
                    result[(order + column) * size + row] = value
                } else {
                    // The new block's own part is symmetric up to rounding.
                    let mirrored = coefficients[(order + column) * count + (row - order)]
                    result[row * size + order + column] = (value + mirrored) / 2
                }
            }
        }
        return result
    }

    /// ‖H v − θ v‖ of the worst wanted pair: y_newᵀ (R Rᵀ) y_new, where R is what H·Q_new has outside the basis.
    private func largestResidual(
        _ remainder: RowVectors, ritz: SymmetricEigen<Double>, old: Int, wanted: Int
    ) -> Double {
        let count = remainder.rowCount
        let gram = remainder.products(with: remainder, workers: workers)
        var largest = 0.0
        for k in 0..<wanted {
            var square = 0.0
            for a in 0..<count {
                var sum = 0.0
                for b in 0..<count { sum += gram[a * count + b] * ritz.vectors[k * ritz.order + old + b] }
                square += sum * ritz.vectors[k * ritz.order + old + a]
            }
            largest = max(largest, square)
        }
        return max(0, largest).squareRoot()
    }
}
