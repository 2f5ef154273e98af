import Files
import Format
import Schema

/// What one worker reads of a block past the page cache: the wanted pages in file order, some megabytes at a time.
///
/// Several workers, each waiting for its own window, keep the disk busy; small pages that lie together cost one read.
public final class DirectWindow {
    private let file: DirectFile
    /// Ranges that are read at once, ascending.
    private let runs: [Range<Int>]
    private var current: (run: Range<Int>, bytes: DirectBytes)?
    private var isRefused = false
    /// Bytes read so far, those between wanted pages too.
    public private(set) var byteCount = 0

    /// Bytes that are read at once: far beyond what a disk needs for its full rate, and little memory for many workers.
    static let runByteCount = 2 << 20
    /// A gap between wanted pages that costs less than another read.
    private static let gapByteCount = 64 << 10

    /// `pages` are the ranges of the wanted pages, ascending and not overlapping.
    init(_ file: DirectFile, pages: [Range<Int>]) {
        self.file = file
        var runs: [Range<Int>] = []
        for page in pages {
            if let last = runs.last, page.lowerBound - last.upperBound <= Self.gapByteCount,
                page.upperBound - last.lowerBound <= Self.runByteCount
            {
                runs[runs.count - 1] = last.lowerBound..<page.upperBound
            } else {
                runs.append(page)
            }
        }
        self.runs = runs
    }

    /// The bytes of a wanted page; nil for others, and where the file system refuses direct reads.
    func bytes(_ page: Range<Int>) throws(FileError) -> FileBytes? {
        if let current, current.run.lowerBound <= page.lowerBound, page.upperBound <= current.run.upperBound {
            return current.bytes.bytes(page)
        }
        guard !isRefused, let run = run(of: page) else { return nil }
        // The old bytes go first, so that the new ones may take their memory.
        current = nil
        guard let bytes = try file.read(run) else {
            isRefused = true
            return nil
        }
        byteCount += bytes.byteCount
        current = (run, bytes)
        return bytes.bytes(page)
    }

    private func run(of page: Range<Int>) -> Range<Int>? {
        var (low, high) = (0, runs.count)
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].upperBound < page.upperBound { low = middle + 1 } else { high = middle }
        }
        guard low < runs.count, runs[low].lowerBound <= page.lowerBound else { return nil }
        return runs[low]
    }
}

extension SegmentReader {
    /// A window on the vectors of some layers of a block; nil where the file system has no direct reads.
    public func directWindow(block: Int, layers: [Int]) -> DirectWindow? {
        guard let file = file.direct else { return nil }
        let pages = layers.flatMap { layer in
            columns(ofLayer: layer).compactMap { self.file.pageNumber(column: $0, block: block) }
        }
        return DirectWindow(
            file,
            pages: pages.map { self.file.footer.pages[$0] }.map { Int($0.offset)..<Int($0.end) }
                .sorted { $0.lowerBound < $1.lowerBound })
    }

    /// The columns of a layer's factors or matrices.
    private func columns(ofLayer layer: Int) -> [Int] {
        guard let rank = schema.layers[layer].rank else { return [footer.layout.denseColumn(layer: layer)] }
        return (0..<rank).flatMap {
            [
                footer.layout.leftColumn(layer: layer, component: $0),
                footer.layout.rightColumn(layer: layer, component: $0),
            ]
        }
    }
}
