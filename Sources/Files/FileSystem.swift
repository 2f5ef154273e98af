import CPlatform
import Glibc

/// The file system that a path is on.
public struct FileSystem: Sendable, Hashable {
    /// Its kind, as `mount` calls it; a number in hexadecimal where the kernel's number is all that is known.
    public let kind: String
    /// Whether its files are on another machine, or come through a process of a user.
    public let isRemote: Bool
    /// Bytes that this user may still write.
    public let availableByteCount: Int

    /// The file system of an existing file or directory.
    public init(of path: String) throws(FileError) {
        var number: UInt64 = 0
        var available: UInt64 = 0
        guard retryingInterrupts({ lorif_file_system(path, &number, &available) }) == 0 else {
            throw .last("examine", path)
        }
        let known = Self.kinds[number]
        kind = known?.name ?? "0x" + String(number, radix: 16)
        isRemote = known?.isRemote ?? false
        availableByteCount = Int(clamping: available)
    }

    /// linux/magic.h, and for those that are not in it their own sources.
    private static let kinds: [UInt64: (name: String, isRemote: Bool)] = [
        0xEF53: ("ext4", false), 0x5846_5342: ("xfs", false), 0x9123_683E: ("btrfs", false),
        0xF2F5_2010: ("f2fs", false), 0x2FC1_2FC1: ("zfs", false), 0x0102_1994: ("tmpfs", false),
        0x794C_7630: ("overlay", false), 0x5346_544E: ("ntfs", false), 0x4D44: ("vfat", false),
        0x6969: ("nfs", true), 0xFF53_4D42: ("cifs", true), 0xFE53_4D42: ("smb2", true), 0x6573_5546: ("fuse", true),
        0x0102_1997: ("9p", true), 0x00C3_6400: ("ceph", true), 0x0BD0_0BD0: ("lustre", true),
        0x4750_4653: ("gpfs", true),
    ]
}

/// Whether the directory's entries can be made durable (`fsync` of a directory), as commits need.
public func canSynchronize(directory path: String) -> Bool {
    let descriptor = retryingInterrupts { open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    return retryingInterrupts { fsync(descriptor) } == 0
}

/// A limit of the process (`ulimit`).
public enum ProcessLimit: CaseIterable, Sendable {
    case openFiles, fileSize, addressSpace

    /// The hard limit; nil for none.
    public var value: Int? {
        let resource =
            switch self {
            case .openFiles: RLIMIT_NOFILE
            case .fileSize: RLIMIT_FSIZE
            case .addressSpace: RLIMIT_AS
            }
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(resource.rawValue), &limit) == 0, limit.rlim_max != rlim_t.max else {
            return nil
        }
        return Int(clamping: self == .openFiles ? limit.rlim_max : min(limit.rlim_cur, limit.rlim_max))
    }
}
