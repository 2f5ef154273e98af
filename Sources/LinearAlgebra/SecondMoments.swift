public import Schema

/// C1 = mean G Gᵀ (d1×d1) and C2 = mean Gᵀ G (d2×d2) of a layer's gradients, both sides of a whitening.
///
/// Products and sums are in Double, so that nothing is lost to the range of f32: gradients of 1e-20 or 1e+20 are as good as of 1.
public struct SecondMoments: Sendable {
    /// d1.
    public let inputDimension: Int
    /// d2.
    public let outputDimension: Int
    /// Examples added.
    public private(set) var count: Int
    /// Σ G Gᵀ, lower triangle.
    private var left: [Double]
    /// Σ Gᵀ G, lower triangle.
    private var right: [Double]

    /// Nothing added yet.
    public init(inputDimension: Int, outputDimension: Int) {
        self.inputDimension = inputDimension
        self.outputDimension = outputDimension
        count = 0
        left = [Double](repeating: 0, count: inputDimension * inputDimension)
        right = [Double](repeating: 0, count: outputDimension * outputDimension)
    }

    /// Adds full gradients, n × (d1·d2), each row-major. 2·n·d1·d2·(d1 + d2) operations in Double.
    public mutating func add(_ gradients: [Float], count rows: Int) {
        let (d1, d2) = (inputDimension, outputDimension)
        precondition(gradients.count == rows * d1 * d2, "gradients are not n × d1 × d2")
        guard rows > 0 else { return }
        let wide = gradients.map { Double($0) }
        var rightSpan = right.mutableSpan
        multiplyBySelf(wide.span, transpose: true, into: &rightSpan, n: d2, k: rows * d1, beta: 1)
        var leftSpan = left.mutableSpan
        for row in 0..<rows {
            let matrix = wide.span.extracting(row * d1 * d2..<(row + 1) * d1 * d2)
            multiplyBySelf(matrix, into: &leftSpan, n: d1, k: d2, beta: 1)
        }
        count += rows
    }

    /// The means: C1 and C2, symmetric, row-major. Something must have been added.
    public var means: (left: [Double], right: [Double]) {
        precondition(count > 0, "no gradients")
        func mean(_ sum: [Double], _ order: Int) -> [Double] {
            var matrix = sum.map { $0 / Double(count) }
            var span = matrix.mutableSpan
            symmetrizeFromLower(&span, n: order)
            return matrix
        }
        return (mean(left, inputDimension), mean(right, outputDimension))
    }
}

/// Why second moments cannot be turned into a whitening.
public enum WhiteningFailure: Error, Hashable, Sendable {
    /// NaN or infinity among the moments.
    case notFinite
    /// A moment matrix has an eigenvalue that is clearly negative: it is no mean of G Gᵀ.
    case notSemidefinite(side: String, eigenvalue: Double)
    /// The maps are outside the range of f32: the gradients are too large or too small.
    case outOfRange
    /// LAPACK gave up.
    case decomposition(LinearAlgebraError)
}

extension WhiteningFailure: CustomStringConvertible {
    /// What was expected and what was found.
    public var description: String {
        switch self {
        case .notFinite: "expected finite second moments, found NaN or infinity"
        case .notSemidefinite(let side, let eigenvalue):
            "expected a positive semidefinite second moment on the \(side) side, found the eigenvalue \(eigenvalue)"
        case .outOfRange:
            "expected gradients of a size whose whitening fits single precision, found others: scale them"
        case .decomposition(let error): "\(error)"
        }
    }
}

extension LayerWhitening {
    /// The whitening of a layer from its second moments (symmetric; the lower triangles are read).
    ///
    /// W = (C + ε·(mean eigenvalue)·I)^(-1/2) on each side, √tr(C1) times on the left. Moments without any energy give the
    /// identity. O(d1³ + d2³).
    public init(
        name: String, inputDimension: Int, outputDimension: Int, leftMoment: [Double], rightMoment: [Double],
        epsilon: Double
    ) throws(WhiteningFailure) {
        precondition(epsilon > 0, "epsilon must be positive")
        let first = try InverseRoot(leftMoment, order: inputDimension, side: "left", epsilon: epsilon)
        let second = try InverseRoot(rightMoment, order: outputDimension, side: "right", epsilon: epsilon)
        let isZero = first.trace == 0 || second.trace == 0
        let left = try first.matrix(scale: first.trace.squareRoot(), isIdentity: isZero)
        let right = try second.matrix(scale: 1, isIdentity: isZero)
        self.init(
            name: name, inputDimension: inputDimension, outputDimension: outputDimension,
            leftEigenvalues: isZero ? Array(repeating: 0, count: inputDimension) : first.eigenvalues,
            rightEigenvalues: isZero ? Array(repeating: 0, count: outputDimension) : second.eigenvalues, left: left,
            right: right)
    }
}

/// (C + ε·tr(C)/d·I)^(-1/2) by the eigenpairs of C.
private struct InverseRoot {
    let order: Int
    let trace: Double
    /// Descending, not below zero.
    let eigenvalues: [Double]
    private let vectors: [Double]
    private let epsilon: Double

    init(_ moment: [Double], order: Int, side: String, epsilon: Double) throws(WhiteningFailure) {
        precondition(moment.count == order * order, "moment is not d×d")
        guard moment.allSatisfy(\.isFinite) else { throw .notFinite }
        let pairs: SymmetricEigen<Double>
        do { pairs = try symmetricEigen(moment, order: order) } catch { throw .decomposition(error) }
        let largest = max(0, pairs.values.first ?? 0)
        // Rounding leaves about d·2⁻⁵³ of the largest; moments given in f32 leave 10⁻⁷ of it.
        if let smallest = pairs.values.last, smallest < -1e-5 * largest || (largest == 0 && smallest < 0) {
            throw .notSemidefinite(side: side, eigenvalue: smallest)
        }
        self.order = order
        self.epsilon = epsilon
        eigenvalues = pairs.values.map { max(0, $0) }
        vectors = pairs.vectors
        trace = eigenvalues.reduce(0, +)
    }

    func matrix(scale: Double, isIdentity: Bool) throws(WhiteningFailure) -> [Float] {
        var result = [Float](repeating: 0, count: order * order)
        if isIdentity {
            for index in 0..<order { result[index * order + index] = 1 }
            return result
        }
        let damping = epsilon * trace / Double(order)
        var scaled = vectors
        for (row, value) in eigenvalues.enumerated() {
            // E diag(a) Eᵀ = (√a E)(√a E)ᵀ: symmetric to the last bit.
            let factor = (scale / (value + damping).squareRoot()).squareRoot()
            for index in 0..<order { scaled[row * order + index] *= factor }
        }
        var product = [Double](repeating: 0, count: order * order)
        var span = product.mutableSpan
        multiplyBySelf(scaled.span, transpose: true, into: &span, n: order, k: order)
        symmetrizeFromLower(&span, n: order)
        for index in result.indices { result[index] = Float(product[index]) }
        guard result.allSatisfy(\.isFinite), result.contains(where: { $0.isNormal }) else { throw .outOfRange }
        return result
    }
}
