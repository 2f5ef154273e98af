import Files

/// The payload of a page: a range of a mapped file, or bytes of its own.
public struct PageBytes: Sendable {
    private let mapped: MappedBytes?
    private let owned: [UInt8]

    init(_ mapped: MappedBytes) {
        self.mapped = mapped
        owned = []
    }

    init(_ owned: [UInt8]) {
        mapped = nil
        self.owned = owned
    }

    /// The bytes themselves.
    public var span: RawSpan {
        @_lifetime(borrow self)
        borrowing get {
            if let mapped { return unsafe _overrideLifetime(mapped.span, borrowing: self) }
            return unsafe _overrideLifetime(owned.span.bytes, borrowing: self)
        }
    }
}
