/// The two maps of a whitened layer: a gradient G is kept as `left` · G · `right`.
public struct LayerWhitening: Hashable, Sendable {
    /// The layer's full name.
    public let name: String
    /// d1: the order of `left`.
    public let inputDimension: Int
    /// d2: the order of `right`.
    public let outputDimension: Int
    /// Eigenvalues of C1 = mean G Gᵀ, descending; all zero when the layer's gradients were.
    public let leftEigenvalues: [Double]
    /// Eigenvalues of C2 = mean Gᵀ G, descending; all zero when the layer's gradients were.
    public let rightEigenvalues: [Double]
    /// W1, d1×d1, symmetric, row-major.
    public let left: [Float]
    /// W2, d2×d2, symmetric, row-major.
    public let right: [Float]

    /// The counts must be those of the dimensions.
    public init(
        name: String, inputDimension: Int, outputDimension: Int, leftEigenvalues: [Double],
        rightEigenvalues: [Double], left: [Float], right: [Float]
    ) {
        precondition(leftEigenvalues.count == inputDimension && left.count == inputDimension * inputDimension)
        precondition(rightEigenvalues.count == outputDimension && right.count == outputDimension * outputDimension)
        self.name = name
        self.inputDimension = inputDimension
        self.outputDimension = outputDimension
        self.leftEigenvalues = leftEigenvalues
        self.rightEigenvalues = rightEigenvalues
        self.left = left
        self.right = right
    }

    /// Whether the layer is left as it is, because its sample was zero.
    public var isIdentity: Bool { (leftEigenvalues.first ?? 0) <= 0 || (rightEigenvalues.first ?? 0) <= 0 }

    /// Largest over smallest stretch of each map, 1 for the identity.
    public func conditions(epsilon: Double) -> (left: Double, right: Double) {
        func condition(_ eigenvalues: [Double]) -> Double {
            let mean = eigenvalues.reduce(0, +) / Double(max(1, eigenvalues.count))
            guard !isIdentity, let first = eigenvalues.first, let last = eigenvalues.last else { return 1 }
            return ((max(0, first) + epsilon * mean) / (max(0, last) + epsilon * mean)).squareRoot()
        }
        return (condition(leftEigenvalues), condition(rightEigenvalues))
    }
}

/// A two-sided whitening of every layer: the coordinates that all gradients of a whitened store are in.
///
/// W1 = √tr(C1) · (C1 + ε·tr(C1)/d1 · I)^(-1/2) and W2 = (C2 + ε·tr(C2)/d2 · I)^(-1/2). If vec(G) has the second moment
/// C1 ⊗ C2 / tr(C1), the entries of W1 G W2 have about unit variance.
public struct WhiteningBasis: Hashable, Sendable {
    /// ε: the share of the mean eigenvalue that is added to every eigenvalue.
    public let epsilon: Double
    /// Examples that the second moments are means over; 0 when they were given and not computed.
    public let sampleCount: Int
    /// The layers, in the order of the batch that they were found on; names are unique.
    public let layers: [LayerWhitening]

    /// A basis of these parts.
    public init(epsilon: Double, sampleCount: Int, layers: [LayerWhitening]) {
        self.epsilon = epsilon
        self.sampleCount = sampleCount
        self.layers = layers
    }
}
