/// A range of a file in memory that somebody else owns, and that this keeps alive: a mapping, or what a direct read brought.
public struct FileBytes: Sendable {
    private let owner: any AnyObject & Sendable
    nonisolated(unsafe) private let bytes: UnsafeRawBufferPointer

    init(owner: any AnyObject & Sendable, bytes: UnsafeRawBufferPointer) {
        self.owner = owner
        unsafe self.bytes = bytes
    }

    /// How many bytes there are.
    public var count: Int { bytes.count }

    /// The bytes themselves.
    public var span: RawSpan {
        @_lifetime(borrow self)
        borrowing get { unsafe _overrideLifetime(RawSpan(_unsafeBytes: bytes), borrowing: self) }
    }
}
