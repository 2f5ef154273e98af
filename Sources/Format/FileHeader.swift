public import Checksum

/// What a paged file carries: the first eight bytes of its header.
public enum FileMagic: String, Hashable, Sendable, CaseIterable {
    /// Rows of a store.
    case segment = "LORIFSEG"
    /// Eigenvalues and bases of a fit.
    case curvature = "LORIFCRV"
    /// The maps of a whitening.
    case basis = "LORIFBAS"
    /// Rows in the eigenbases of a fit.
    case coordinates = "LORIFCOO"

    var bytes: [UInt8] { Array(rawValue.utf8) }
}

/// Alignments and sizes of the paged file.
public enum FileGeometry {
    /// Bytes of the header; pages begin here.
    public static let headerByteCount = 4096
    /// Bytes of the tail, the last of the file.
    public static let tailByteCount = 64
    /// Bytes of the header that the footer repeats.
    public static let headerCopyByteCount = 40
    /// Where the footer, the tail and small pages begin: a multiple of this.
    public static let alignment = 64
    /// Pages of at least this many stored bytes are large: alignment costs them at most 0.4 % of their size.
    public static let largePageByteCount = 1_048_576
    /// Where large pages begin: a multiple of this, so that direct I/O reads them without a margin.
    public static let largePageAlignment = 4096

    /// The alignment of a page of that stored length.
    public static func alignment(ofPage storedLength: Int) -> Int {
        storedLength >= largePageByteCount ? largePageAlignment : alignment
    }

    /// The smallest multiple of `alignment` (a power of two) that is at least `offset`, nil when it would overflow.
    public static func aligned(_ offset: Int, to alignment: Int) -> Int? {
        let (sum, overflow) = offset.addingReportingOverflow(alignment - 1)
        return overflow || offset < 0 ? nil : sum & ~(alignment - 1)
    }
}

/// The first 4096 bytes of a paged file: what it is, and which readers may touch it.
public struct FileHeader: Hashable, Sendable {
    /// The version that this program writes.
    public static let currentMajor: UInt16 = 1
    /// The minor version that this program writes.
    public static let currentMinor: UInt16 = 0

    /// What the file carries.
    public var magic: FileMagic
    /// The minor version of the program that wrote the file.
    public var minor: UInt16
    /// A reader that does not know one of these features refuses the file.
    public var incompatibleFlags: UInt64
    /// A program that does not know one of these may read the file, but must not derive a new one from it.
    public var readOnlyCompatibleFlags: UInt64
    /// A reader ignores what it does not know here.
    public var compatibleFlags: UInt64
    /// The digest of the schema bytes in the footer.
    public var schemaDigest: Digest

    /// A value of these parts.
    public init(
        magic: FileMagic, schemaDigest: Digest, minor: UInt16 = FileHeader.currentMinor, incompatibleFlags: UInt64 = 0,
        readOnlyCompatibleFlags: UInt64 = 0, compatibleFlags: UInt64 = 0
    ) {
        self.magic = magic
        self.minor = minor
        self.incompatibleFlags = incompatibleFlags
        self.readOnlyCompatibleFlags = readOnlyCompatibleFlags
        self.compatibleFlags = compatibleFlags
        self.schemaDigest = schemaDigest
    }

    /// Bytes 0..<40, which the footer repeats.
    public var copyForFooter: [UInt8] {
        var writer = ByteWriter()
        writer.write(bytes: magic.bytes)
        writer.write(Self.currentMajor)
        writer.write(minor)
        writer.write(UInt32(FileGeometry.headerByteCount))
        writer.write(incompatibleFlags)
        writer.write(readOnlyCompatibleFlags)
        writer.write(compatibleFlags)
        return writer.bytes
    }

    /// The 4096 bytes.
    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(bytes: copyForFooter)
        writer.write(schemaDigest.low)
        writer.write(schemaDigest.high)
        writer.write(bytes: [UInt8](repeating: 0, count: FileGeometry.headerByteCount - 8 - writer.bytes.count))
        writer.write(xxh3(writer.bytes))
        return writer.bytes
    }

    /// The header in 4096 untrusted bytes; the magic must be `magic`.
    public init(decoding bytes: [UInt8], magic: FileMagic) throws(FormatError) {
        guard bytes.count == FileGeometry.headerByteCount else {
            throw .partSize(part: .header, expected: FileGeometry.headerByteCount, found: bytes.count)
        }
        var reader = PartReader(bytes, part: .header)
        let flags = try Self.readCopy(&reader, magic: magic)
        let covered = bytes.count - 8
        var checksumReader = ByteReader(bytes, offset: covered)
        guard let expected = try? checksumReader.read(UInt64.self) else {
            throw .partSize(part: .header, expected: FileGeometry.headerByteCount, found: bytes.count)
        }
        let found = xxh3(bytes.span.extracting(0..<covered).bytes)
        guard expected == found else { throw .checksumMismatch(part: .header, expected: expected, found: found) }
        let digest = try reader.readDigest()
        try reader.readZeros(count: covered - reader.offset)
        guard flags.incompatible == 0 else { throw .unknownIncompatibleFlags(flags.incompatible) }
        self.init(
            magic: magic, schemaDigest: Digest(high: digest.high, low: digest.low), minor: flags.minor,
            incompatibleFlags: flags.incompatible, readOnlyCompatibleFlags: flags.readOnlyCompatible,
            compatibleFlags: flags.compatible)
    }

    typealias Flags = (minor: UInt16, incompatible: UInt64, readOnlyCompatible: UInt64, compatible: UInt64)

    /// Reads bytes 0..<40 of a header, or their copy in a footer; does not judge the flags.
    static func readCopy(_ reader: inout PartReader, magic: FileMagic) throws(FormatError) -> Flags {
        let found = try reader.readBytes(count: 8)
        guard found == magic.bytes else { throw .wrongMagic(part: reader.part, expected: magic.rawValue, found: found) }
        let major = try reader.read(UInt16.self)
        let minor = try reader.read(UInt16.self)
        guard major == currentMajor else { throw .unsupportedVersion(major: major, minor: minor) }
        let length = try reader.readCount()
        guard length == FileGeometry.headerByteCount else {
            throw .headerLength(expected: FileGeometry.headerByteCount, found: length)
        }
        return (minor, try reader.read(), try reader.read(), try reader.read())
    }
}
