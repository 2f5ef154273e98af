import Checksum
@testable import Format
import Glibc

/// Hands a path to a file of these bytes, which is in memory only.
func withFile(_ bytes: [UInt8], _ body: (String) -> Void) {
    guard ftruncate(inputFile.descriptor, 0) == 0,
        pwrite(inputFile.descriptor, bytes, bytes.count, 0) == bytes.count
    else { fail("no memory for a file of \(bytes.count) bytes") }
    body(inputFile.path)
}

/// Without a name of its own: nothing is left behind.
private let inputFile: (descriptor: CInt, path: String) = {
    let name = "/dev/shm/lorif-fuzz-\(getpid()).input"
    let descriptor = open(name, O_RDWR | O_CREAT | O_TRUNC, 0o600)
    guard descriptor >= 0 else { fail("no file in /dev/shm") }
    unlink(name)
    return (descriptor, "/proc/self/fd/\(descriptor)")
}()

/// A paged file whose bytes after the header are given: the header is written, and every checksum and digest is made right,
/// so that what is behind them is reached.
func sealed(_ body: [UInt8], magic: FileMagic) -> [UInt8] {
    let headerCount = FileGeometry.headerByteCount
    var header = FileHeader(magic: magic, schemaDigest: Digest(of: []))
    guard body.count >= FileGeometry.tailByteCount else { return header.encoded() + body }
    var body = body
    let tailStart = body.count - FileGeometry.tailByteCount
    func word(at offset: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(body[offset + $1]) << UInt64(8 * $1) } }
    // The tail's own place in the file decides; where the footer begins and how long it is, the input says.
    let (footerOffset, footerLength) = (word(at: tailStart + 8), word(at: tailStart + 16))
    let start = footerOffset.subtractingReportingOverflow(UInt64(headerCount))
    let end = start.partialValue.addingReportingOverflow(footerLength)
    var digest = Digest(of: [])
    if !start.overflow, !end.overflow, end.partialValue <= UInt64(tailStart) {
        let range = Int(start.partialValue)..<Int(end.partialValue)
        if var footer = try? FileFooter(
            decoding: Array(body[range]), footerOffset: Int(footerOffset), magic: magic)
        {
            for index in footer.pages.indices {
                let page = footer.pages[index]
                let stored = body[(Int(page.offset) - headerCount)..<(Int(page.end) - headerCount)]
                footer.pages[index].checksum = xxh3(Array(stored).span.bytes, seed: page.seed)
            }
            let encoded = footer.encoded()
            if encoded.count == range.count { body.replaceSubrange(range, with: encoded) }
            header = footer.header
        }
        digest = Digest(of: Array(body[range]))
    }
    if footerOffset < UInt64(Int.max), footerLength < UInt64(Int.max) {
        let tail = FileTail(
            footerOffset: Int(footerOffset), footerLength: Int(footerLength), fileLength: headerCount + body.count,
            footerDigest: digest)
        body.replaceSubrange(tailStart..., with: tail.encoded())
    }
    return header.encoded() + body
}
