public import Checksum
import Format

/// What a paged file is, as the catalog remembers it: the digest of the footer covers every page through its checksum.
public struct PagedFileIdentity: Hashable, Sendable {
    /// Bytes of the whole file.
    public let fileLength: Int
    /// Where the footer begins.
    public let footerOffset: Int
    /// Bytes of the footer, without padding.
    public let footerLength: Int
    /// The digest of the footer's bytes.
    public let footerDigest: Digest

    /// A value of these parts.
    public init(fileLength: Int, footerOffset: Int, footerLength: Int, footerDigest: Digest) {
        self.fileLength = fileLength
        self.footerOffset = footerOffset
        self.footerLength = footerLength
        self.footerDigest = footerDigest
    }

    init(_ tail: FileTail) {
        self.init(
            fileLength: tail.fileLength, footerOffset: tail.footerOffset, footerLength: tail.footerLength,
            footerDigest: tail.footerDigest)
    }

    var tail: FileTail {
        FileTail(
            footerOffset: footerOffset, footerLength: footerLength, fileLength: fileLength, footerDigest: footerDigest)
    }
}

extension PagedFileIdentity: CustomStringConvertible {
    /// Length, footer and digest, in words.
    public var description: String {
        "\(fileLength) bytes, footer of \(footerLength) bytes at \(footerOffset), digest \(footerDigest)"
    }
}
