public import Schema

extension MetadataValue {
    /// The value as a table or a group shows it; nil for null.
    public var text: String? {
        switch self {
        case .null: nil
        case .boolean(let value): value ? "true" : "false"
        case .integer(let value): String(value)
        case .number(let value): "\(value)"
        case .string(let value), .json(let value): value
        }
    }
}
