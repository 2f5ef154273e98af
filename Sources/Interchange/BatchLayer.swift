public import Schema

/// How a batch gives a layer's gradients.
public enum BatchForm: Hashable, Sendable {
    /// `<layer>/left` [n, d1, c] and `<layer>/right` [n, d2, c].
    case factors(rank: Int)
    /// `<layer>/full` [n, d1, d2].
    case full
}

/// One layer of a factor batch.
public struct BatchLayer: Hashable, Sendable {
    /// As in the tensors' names, before the last slash.
    public let name: String
    /// d1.
    public let inputDimension: Int
    /// d2.
    public let outputDimension: Int
    /// Factors or full matrices.
    public let form: BatchForm
    /// f32, f16 or bf16.
    public let elementType: ElementType

    /// The dimensions are positive.
    public init(
        name: String, inputDimension: Int, outputDimension: Int, form: BatchForm, elementType: ElementType
    ) {
        self.name = name
        self.inputDimension = inputDimension
        self.outputDimension = outputDimension
        self.form = form
        self.elementType = elementType
    }

    /// The layer's shape in the store's words; `full` is a dense layer.
    public var schema: LayerSchema {
        let form: LayerForm =
            switch form {
            case .factors(let rank): .factors(rank: rank)
            case .full: .dense
            }
        return LayerSchema(
            name: name, inputDimension: inputDimension, outputDimension: outputDimension, form: form)
    }
}
