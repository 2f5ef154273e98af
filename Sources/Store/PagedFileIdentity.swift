public import Checksum
import Format

/// What a paged file is, as the catalog remembers it: the digest of the footer covers every page through its checksum.
public struct PagedFileIdentity: Hashable, Sendable {
    public let fileLength: Int
    public let footerOffset: Int
    public let footerLength: Int
    public let footerDigest: Digest

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
    public var description: String {
        "\(fileLength) bytes, footer of \(footerLength) bytes at \(footerOffset), digest \(footerDigest)"
    }
}
