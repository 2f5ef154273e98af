import Checksum
import Files
import Format
import Glibc
import SystemPackage

/// 128 random bits that tell stores apart.
public struct StoreIdentity: Hashable, Sendable, CustomStringConvertible {
    /// The first half.
    public let high: UInt64
    /// The second half.
    public let low: UInt64

    /// 32 hexadecimal digits.
    public var description: String { hexadecimal(high) + hexadecimal(low) }

    static func random() -> StoreIdentity {
        StoreIdentity(high: .random(in: .min ... .max), low: .random(in: .min ... .max))
    }

    var bytes: [UInt8] {
        var writer = ByteWriter()
        writer.write(high)
        writer.write(low)
        return writer.bytes
    }
}

/// The paths inside a store, its identity file, and what must hold before anything else is opened.
///
///     STORE/lorif.store   STORE/catalog/   STORE/segments/   STORE/curvature/   STORE/coordinates/
///     STORE/basis/   STORE/tmp/   STORE/writer.lock
struct StoreDirectory: Hashable, Sendable {
    let path: String

    var identityPath: String { path + "/lorif.store" }
    var catalogPath: String { path + "/catalog" }
    /// Where a repair builds a catalog, before it takes the place of the old one.
    var repairedCatalogPath: String { path + "/catalog.repaired" }
    var segmentsPath: String { path + "/segments" }
    var curvaturePath: String { path + "/curvature" }
    var temporaryPath: String { path + "/tmp" }
    var quarantinePath: String { path + "/quarantine" }
    var lockPath: String { path + "/writer.lock" }

    /// Paths in the directory that no store has.
    func strays() throws(FileError) -> [String] {
        let own = [
            identityPath, catalogPath, segmentsPath, curvaturePath, coordinatesPath, basesPath, temporaryPath,
            quarantinePath, lockPath,
        ]
        return try fileNames(inDirectory: path).map { path + "/" + $0 }.filter { !own.contains($0) }
    }

    func segmentPath(_ number: UInt64) -> String { segmentsPath + "/" + SegmentInfo.fileName(number) }
    func curvaturePath(_ digest: Digest) -> String { curvaturePath + "/" + CurvatureRecord.fileName(digest) }

    /// Finds a store at a path: a directory with a sound identity file.
    static func open(_ path: String) throws(StoreError) -> (StoreDirectory, StoreIdentity) {
        let directory = StoreDirectory(path: trimmed(path))
        let bytes: [UInt8]
        do throws(FileError) {
            guard let status = try fileStatus(directory.path) else { throw .missing(path: path) }
            guard status.kind == .directory else { throw .notDirectory(path: path) }
            // One byte more than expected, to notice a longer file.
            let file = try ReadableFile(path: directory.identityPath)
            bytes = try file.read(at: 0, count: min(file.byteCount, IdentityFile.byteCount + 1))
        } catch {
            switch error {
            case .missing(directory.identityPath), .notRegularFile(directory.identityPath): throw .notAStore(path: path)
            case .missing, .failed(_, _, .notDirectory): throw .storeMissing(path: path)
            case .notDirectory: throw .notADirectory(path: path)
            default: throw .file(error)
            }
        }
        return (directory, try IdentityFile.decode(bytes, path: directory.identityPath))
    }

    /// Makes the directories and the identity file of a new store, everything but the catalog, under a path that must be free.
    ///
    /// The caller renames the whole to its final name: a store that is visible is complete. Until then it keeps the lock that this gives.
    static func build(at path: String, identity: StoreIdentity) throws(FileError) -> FileLock? {
        let directory = StoreDirectory(path: path)
        try createDirectory(directory.path)
        let lock = try FileLock.acquire(path: directory.lockPath)
        for sub in [directory.catalogPath, directory.segmentsPath, directory.curvaturePath, directory.temporaryPath] {
            try createDirectory(sub)
        }
        var file = try DurableFile(temporaryPath: directory.temporaryPath + "/lorif.store")
        let bytes = IdentityFile.encode(identity)
        try file.append(bytes.span.bytes)
        try file.seal(as: directory.identityPath)
        return lock
    }

    /// What is being built beside a path, to be renamed to it.
    enum Unfinished: String {
        case creating, copying
    }

    /// A name beside `path` to build a store under.
    static func unfinished(_ kind: Unfinished, of path: String, identity: StoreIdentity) -> StoreDirectory {
        StoreDirectory(path: "\(path).\(kind.rawValue)-\(hexadecimal(identity.high))")
    }

    /// Removes what killed commands have left beside `path`. Best effort: one that is at work holds its lock.
    static func sweepUnfinished(beside path: String) {
        let parent = parentDirectory(of: path)
        let name = path.split(separator: "/").last.map(String.init) ?? path
        for found in (try? fileNames(inDirectory: parent)) ?? [] {
            for kind in [Unfinished.creating, .copying] where found.hasPrefix("\(name).\(kind.rawValue)-") {
                let leftover = StoreDirectory(path: parent + "/" + found)
                // A directory without a lock file is just being made, or was killed before it had anything in it.
                let isEmpty = (try? fileNames(inDirectory: leftover.path))?.isEmpty ?? false
                let isLocked = !isEmpty && ((try? FileLock.acquire(path: leftover.lockPath)) ?? nil) == nil
                if !isLocked { leftover.removeUnfinished() }
            }
        }
    }

    /// Removes a store that was never visible, as far as it was built.
    func removeUnfinished() {
        for sub in [catalogPath, segmentsPath, curvaturePath, coordinatesPath, basesPath, temporaryPath] {
            for name in (try? fileNames(inDirectory: sub)) ?? [] { unlink(sub + "/" + name) }
            rmdir(sub)
        }
        unlink(identityPath)
        unlink(lockPath)
        rmdir(path)
    }

    static func trimmed(_ path: String) -> String {
        var path = path
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        return path
    }
}

/// The 128 bytes of lorif.store.
enum IdentityFile {
    static let byteCount = 128
    static let magic = Array("LORIFSTO".utf8)
    static let major: UInt16 = 1
    static let minor: UInt16 = 0
    /// Offsets of the fields, as in Formats/store.md.
    static let fields: [(name: String, offset: Int, byteCount: Int)] = [
        ("magic", 0, 8), ("major", 8, 2), ("minor", 10, 2), ("length", 12, 4), ("incompatible features", 16, 8),
        ("read-only compatible features", 24, 8), ("compatible features", 32, 8), ("store identity", 40, 16),
        ("reserved", 56, 64), ("checksum", 120, 8),
    ]

    static func encode(_ identity: StoreIdentity) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(bytes: magic)
        writer.write(major)
        writer.write(minor)
        writer.write(UInt32(byteCount))
        writer.write(bytes: [UInt8](repeating: 0, count: 24))
        writer.write(bytes: identity.bytes)
        writer.write(bytes: [UInt8](repeating: 0, count: 64))
        writer.write(xxh3(writer.bytes))
        return writer.bytes
    }

    static func decode(_ bytes: [UInt8], path: String) throws(StoreError) -> StoreIdentity {
        // A file of another kind, or of a newer format, may have any length and any checksum.
        guard bytes.starts(with: magic) else { throw .notAStore(path: path) }
        do throws(CatalogCodingError) {
            guard bytes.count == byteCount else {
                throw .rule(expected: "\(byteCount) bytes", found: "\(bytes.count) bytes")
            }
            var tail = CatalogReader(bytes, offset: byteCount - 8)
            let expected: UInt64 = try tail.read()
            let found = xxh3(Array(bytes.dropLast(8)))
            guard expected == found else { throw .checksum(expected: expected, found: found) }
            return try decodeFields(bytes)
        } catch {
            if case .version(let major, let flags) = error {
                throw .storeVersion(path: path, major: major, incompatibleFlags: flags)
            }
            let (expected, found) = error.texts
            throw .identityDamaged(path: path, expected: expected, found: found)
        }
    }

    private static func decodeFields(_ bytes: [UInt8]) throws(CatalogCodingError) -> StoreIdentity {
        var reader = CatalogReader(bytes, offset: 8)
        let major: UInt16 = try reader.read()
        _ = try reader.read(UInt16.self)
        let length: UInt32 = try reader.read()
        let incompatible: UInt64 = try reader.read()
        guard major == IdentityFile.major, incompatible == 0 else { throw .version(major: major, flags: incompatible) }
        guard length == UInt32(byteCount) else { throw .rule(expected: "length \(byteCount)", found: "\(length)") }
        _ = try reader.read(UInt64.self)
        _ = try reader.read(UInt64.self)
        let identity = StoreIdentity(high: try reader.read(), low: try reader.read())
        try reader.readZeros(count: 64)
        return identity
    }
}

extension CatalogCodingError {
    /// Expected and found, in words.
    var texts: (expected: String, found: String) {
        switch self {
        case .checksum(let expected, let found): ("checksum \(hexadecimal(expected))", hexadecimal(found))
        case .bytes(let failure): ("a whole record", "\(failure)")
        case .rule(let expected, let found): (expected, found)
        case .version(let major, let flags):
            ("format \(IdentityFile.major) without features", "format \(major) with features \(hexadecimal(flags))")
        }
    }
}

/// Runs file operations, giving their errors the store's type.
func wrapping<Result>(_ body: () throws(FileError) -> Result) throws(StoreError) -> Result {
    do { return try body() } catch { throw .file(error) }
}
