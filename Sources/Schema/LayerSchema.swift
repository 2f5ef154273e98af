/// How a layer's per-example gradients are stored.
public enum LayerForm: Hashable, Sendable {
    /// Rank-c pairs: left U (d1×c) and right V (d2×c), gradient ≈ U Vᵀ (LoRIF).
    case factors(rank: Int)
    /// The full d1×d2 matrix, row-major (LoGRA); with d2 = 1 a plain vector (TRAK).
    case dense
}

/// One linear map of the model, as the store knows it.
///
/// The projected gradient of an example is G = (X P_in)ᵀ (dY P_out), a d1×d2 matrix: input side first.
public struct LayerSchema: Hashable, Sendable {
    /// The layer's full name in the model; may contain dots and slashes.
    public let name: String
    /// d1: the projected input dimension (rows of G).
    public let inputDimension: Int
    /// d2: the projected output dimension (columns of G).
    public let outputDimension: Int
    /// Factors or full matrices.
    public let form: LayerForm

    /// A layer of known shape.
    public init(name: String, inputDimension: Int, outputDimension: Int, form: LayerForm) {
        self.name = name
        self.inputDimension = inputDimension
        self.outputDimension = outputDimension
        self.form = form
    }

    /// D_l = d1·d2, the length of the layer's vectorised gradient.
    public var gradientLength: Int { inputDimension * outputDimension }

    /// c for factors, nil for a dense layer.
    public var rank: Int? {
        if case .factors(let rank) = form { rank } else { nil }
    }

    /// Numbers stored for one example: c·(d1 + d2), or d1·d2 for a dense layer.
    public var storedNumberCount: Int {
        switch form {
        case .factors(let rank): rank * (inputDimension + outputDimension)
        case .dense: gradientLength
        }
    }
}
