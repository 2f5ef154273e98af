/// One value of an example's user metadata, as JSON has them.
public enum MetadataValue: Hashable, Sendable {
    case null
    case boolean(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    /// An array or object, kept as compact JSON text.
    case json(String)
}

/// The user metadata of one example: fields by name, in the order of the source, without its id.
public struct MetadataRecord: Hashable, Sendable {
    /// Names and values; a name occurs once.
    public var fields: [(name: String, value: MetadataValue)]

    /// A record of these fields.
    public init(fields: [(name: String, value: MetadataValue)] = []) {
        self.fields = fields
    }

    /// The value of the field of that name.
    public subscript(name: String) -> MetadataValue? {
        fields.first { $0.name == name }?.value
    }

    /// Equal fields in the same order.
    public static func == (a: MetadataRecord, b: MetadataRecord) -> Bool {
        a.fields.elementsEqual(b.fields) { $0.name == $1.name && $0.value == $1.value }
    }

    /// Feeds names and values, in order.
    public func hash(into hasher: inout Hasher) {
        for field in fields {
            hasher.combine(field.name)
            hasher.combine(field.value)
        }
    }
}
