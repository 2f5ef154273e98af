import Glibc
import SystemPackage
import TestSupport
import Testing

@testable import Files

/// Writes a file with the C library alone.
func writeRaw(_ path: String, _ bytes: [UInt8]) {
    guard let file = fopen(path, "w") else { preconditionFailure("fopen \(path)") }
    precondition(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    fclose(file)
}

@Suite struct ReadableFileTests {
    let directory = TemporaryDirectory()

    @Test func readsExactRanges() throws {
        let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        let path = directory.path + "/a"
        writeRaw(path, bytes)
        let file = try ReadableFile(path: path)
        #expect(file.byteCount == 1000)
        #expect(try file.read(at: 0, count: 1000) == bytes)
        #expect(try file.read(at: 13, count: 50) == Array(bytes[13..<63]))
        #expect(try file.read(at: 1000, count: 0).isEmpty)
        var target = [UInt8](repeating: 1, count: 10)
        var span = target.mutableSpan
        var raw = span.mutableBytes
        try file.read(at: 990, into: &raw)
        #expect(target == Array(bytes[990...]))
    }

    @Test func refusesRangesBeyondTheEnd() throws {
        let path = directory.path + "/a"
        writeRaw(path, [1, 2, 3])
        let file = try ReadableFile(path: path)
        #expect(throws: FileError.shortRead(path: path, offset: 2, expected: 2, found: 1)) {
            try file.read(at: 2, count: 2)
        }
        // Must be refused before anything of that size is allocated.
        #expect(throws: FileError.shortRead(path: path, offset: 0, expected: .max, found: 3)) {
            try file.read(at: 0, count: .max)
        }
        #expect(throws: FileError.shortRead(path: path, offset: .max, expected: 1, found: 0)) {
            try file.read(at: .max, count: 1)
        }
    }

    @Test func noticesThatTheFileShrankAfterOpening() throws {
        let path = directory.path + "/a"
        writeRaw(path, Array(repeating: 9, count: 100))
        let file = try ReadableFile(path: path)
        #expect(truncate(path, 40) == 0)
        #expect(throws: FileError.shortRead(path: path, offset: 0, expected: 100, found: 40)) {
            try file.read(at: 0, count: 100)
        }
    }

    @Test func refusesWhatIsNotARegularFile() {
        #expect(throws: FileError.notRegularFile(path: directory.path)) { try ReadableFile(path: directory.path) }
        let pipe = directory.path + "/pipe"
        #expect(mkfifo(pipe, 0o600) == 0)
        #expect(throws: FileError.notRegularFile(path: pipe)) { try ReadableFile(path: pipe) }
        #expect(throws: FileError.missing(path: "/nowhere/at/all")) { try ReadableFile(path: "/nowhere/at/all") }
        #expect(throws: FileError.failed(operation: "open", path: pipe + "/x", errno: .notDirectory)) {
            try ReadableFile(path: pipe + "/x")
        }
    }

    @Test func identityIsSharedByAliases() throws {
        writeRaw(directory.path + "/a", [1])
        writeRaw(directory.path + "/c", [1])
        #expect(symlink("a", directory.path + "/b") == 0)
        let original = try ReadableFile(path: directory.path + "/a").identity
        #expect(try ReadableFile(path: directory.path + "/b").identity == original)
        #expect(try ReadableFile(path: directory.path + "/c").identity != original)
    }
}

@Suite struct DurableFileTests {
    let directory = TemporaryDirectory()

    @Test func appearsUnderItsNameOnlyWhenSealed() throws {
        let (temporary, final) = (directory.path + "/t", directory.path + "/f")
        var file = try DurableFile(temporaryPath: temporary)
        try file.append([1, 2, 3].span.bytes)
        let more: [UInt8] = [4, 5]
        try file.append(more.span.bytes)
        #expect(file.byteCount == 24 + 2)
        #expect(try fileStatus(final) == nil)
        try file.seal(as: final)
        #expect(try fileNames(inDirectory: directory.path) == ["f"])
        #expect(try ReadableFile(path: final).read(at: 24, count: 2) == [4, 5])
        var status = stat()
        #expect(stat(final, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
    }

    @Test func disappearsWhenNotSealed() throws {
        do {
            var file = try DurableFile(temporaryPath: directory.path + "/t")
            try file.append([1].span.bytes)
            #expect(try fileNames(inDirectory: directory.path) == ["t"])
        }
        #expect(try fileNames(inDirectory: directory.path) == [])
    }

    @Test func neverReplacesUnlessAsked() throws {
        let (temporary, final) = (directory.path + "/t", directory.path + "/f")
        writeRaw(final, [42])
        let error = #expect(throws: FileError.self) {
            try DurableFile(temporaryPath: temporary).seal(as: final)
        }
        #expect(error == .alreadyExists(path: final))
        #expect(try fileNames(inDirectory: directory.path) == ["f"])
        #expect(try ReadableFile(path: final).read(at: 0, count: 1) == [42])

        var second = try DurableFile(temporaryPath: temporary)
        let bytes: [UInt8] = [7]
        try second.append(bytes.span.bytes)
        try second.seal(as: final, replacing: true)
        #expect(try ReadableFile(path: final).read(at: 0, count: 1) == [7])
    }

    @Test func refusesATakenTemporaryName() throws {
        let path = directory.path + "/t"
        #expect(symlink("elsewhere", path) == 0)
        let error = #expect(throws: FileError.self) { _ = try DurableFile(temporaryPath: path).byteCount }
        #expect(error == .alreadyExists(path: path))
        #expect(try fileNames(inDirectory: directory.path) == ["t"])
    }

    @Test func writesAtOffsets() throws {
        let file = try DurableFile(temporaryPath: directory.path + "/t")
        try file.setLength(6)
        let bytes: [UInt8] = [5, 6]
        try file.write(bytes.span.bytes, at: 3)
        try file.seal(as: directory.path + "/f")
        #expect(try ReadableFile(path: directory.path + "/f").read(at: 0, count: 6) == [0, 0, 0, 5, 6, 0])
    }

    @Test func reportsADirectoryThatIsNotThere() throws {
        let missing = directory.path + "/no/f"
        let error = #expect(throws: FileError.self) {
            try DurableFile(temporaryPath: directory.path + "/t").seal(as: missing)
        }
        #expect(error == .missing(path: directory.path + "/no"))
        #expect(try fileNames(inDirectory: directory.path) == [])
    }
}

@Suite struct FileLockTests {
    let directory = TemporaryDirectory()

    @Test func excludesASecondHolderInTheSameProcess() throws {
        let path = directory.path + "/lock"
        var first = try FileLock.acquire(path: path)
        #expect(first?.path == path)
        #expect(try FileLock.acquire(path: path) == nil)
        // A classic POSIX lock would be lost by this.
        close(open(path, O_RDONLY))
        #expect(try FileLock.acquire(path: path) == nil)
        first = nil
        #expect(try FileLock.acquire(path: path) != nil)
    }

    @Test func refusesASymbolicLink() {
        let path = directory.path + "/lock"
        #expect(symlink("elsewhere", path) == 0)
        #expect(throws: FileError.failed(operation: "open", path: path, errno: .tooManySymbolicLinkLevels)) {
            _ = try FileLock.acquire(path: path)
        }
    }
}

@Suite struct DirectoryTests {
    let directory = TemporaryDirectory()

    @Test func listsCreatesAndRemoves() throws {
        let sub = directory.path + "/sub"
        try createDirectory(sub)
        #expect(throws: FileError.alreadyExists(path: sub)) { try createDirectory(sub) }
        for name in ["b", "a", "é", "C"] { writeRaw(sub + "/" + name, []) }
        #expect(try fileNames(inDirectory: sub) == ["C", "a", "b", "é"])
        #expect(throws: FileError.notDirectory(path: sub + "/a")) { try fileNames(inDirectory: sub + "/a") }
        for name in ["b", "a", "é", "C"] { try removeFile(sub + "/" + name) }
        #expect(throws: FileError.missing(path: sub + "/a")) { try removeFile(sub + "/a") }
        try synchronizeDirectory(sub)
        try removeDirectory(sub)
        #expect(try fileStatus(sub) == nil)
        #expect(try fileStatus(directory.path)?.kind == .directory)
    }

    @Test func namesTheParent() {
        #expect(parentDirectory(of: "/a/b") == "/a")
        #expect(parentDirectory(of: "/a") == "/")
        #expect(parentDirectory(of: "a") == ".")
    }
}
