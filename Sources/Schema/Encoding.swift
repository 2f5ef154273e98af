/// How numbers are stored; the raw value is the on-disk code.
///
/// `f16`, `int8` and the low-bit codes carry one bfloat16 scale per vector (per example for a dense layer): value = scale · code.
/// For `f16` the scale is a power of two, so that tiny and huge gradients lose nothing; for `q4`-`q1` the code is an
/// index into the Lloyd-Max codebook of the standard Gaussian.
public enum Encoding: UInt8, Hashable, Sendable, CaseIterable {
    case f32 = 1
    case f16 = 2
    case bf16 = 3
    case int8 = 4
    case q4 = 5
    case q3 = 6
    case q2 = 7
    case q1 = 8

    /// The encoding of a store for which none is asked: on retraining data it loses 0.001 to 0.007 of the linear datamodeling
    /// score at an eighth of the bytes of `f32` (README, "Which encoding").
    public static let standard: Encoding = .q4

    /// The name used on the command line and in reports.
    public var name: String {
        switch self {
        case .f32: "f32"
        case .f16: "f16"
        case .bf16: "bf16"
        case .int8: "int8"
        case .q4: "q4"
        case .q3: "q3"
        case .q2: "q2"
        case .q1: "q1"
        }
    }

    /// The encoding of that name.
    public init?(name: String) {
        guard let match = Encoding.allCases.first(where: { $0.name == name }) else { return nil }
        self = match
    }

    /// Bits of one stored number, without the scale.
    public var bitsPerNumber: Int {
        switch self {
        case .f32: 32
        case .f16, .bf16: 16
        case .int8: 8
        case .q4: 4
        case .q3: 3
        case .q2: 2
        case .q1: 1
        }
    }

    /// Whether each vector carries a bfloat16 scale.
    public var hasScale: Bool {
        switch self {
        case .f32, .bf16: false
        case .f16, .int8, .q4, .q3, .q2, .q1: true
        }
    }

    /// The number of rows whose codes are interleaved: 32 for low-bit codes, 1 otherwise.
    public var interleavedRowCount: Int {
        switch self {
        case .f32, .f16, .bf16, .int8: 1
        case .q4, .q3, .q2, .q1: 32
        }
    }
}
