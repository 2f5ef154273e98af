import Checksum
import Dispatch
import Files
import Format
import Glibc

extension PagedFileReader {
    /// What is done with a page's payload once its checksum has been found right; what it throws is damage too.
    public typealias PageCheck = @Sendable (_ page: Int, _ payload: [UInt8]) throws(StoreError) -> Void

    /// Reads every byte of the file again (header, padding, pages, footer, tail) on all cores and gives all damages in file order.
    ///
    /// `content` gets each page that is whole and for which `isWanted` says so; also compressed pages are decompressed.
    /// `progress` gets the bytes read since the last call, on the caller's thread; false stops.
    /// Memory: for each core a quarter of a mebibyte, or a page and what it decompresses to.
    public func damages(
        progress: (Int) -> Bool, isWanted: (Int) -> Bool = { _ in false },
        content: PageCheck = { (_, _) throws(StoreError) in }
    ) -> [StoreError] {
        var damages: [StoreError] = []
        collect(&damages) { () throws(StoreError) in try verifyHeader() }
        guard progress(FileGeometry.headerByteCount) else { return damages }
        let scan = VerificationRuns(pageRuns(isWanted: isWanted))
        let coreCount = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        for wave in scan.waves {
            // Each core takes run after run and waits for the others at the end of the wave only.
            DispatchQueue.concurrentPerform(iterations: coreCount) { _ in
                var buffer: [UInt8] = []
                while let run = scan.next(below: wave.upperBound, prefetching: file) {
                    scan.add(self.damages(in: run, buffer: &buffer, content: content))
                }
            }
            guard progress(scan.byteCount(of: wave)) else { return damages + scan.damages }
        }
        damages += scan.damages
        let end = footer.pages.last.map { Int($0.end) } ?? FileGeometry.headerByteCount
        collect(&damages) { () throws(StoreError) in try verifyPadding(end..<identity.footerOffset) }
        collect(&damages) { () throws(StoreError) in try verifyFooter() }
        _ = progress(identity.fileLength - end)
        return damages
    }

    /// So small that a run stays in a core's cache between being read and being checked.
    private static let runByteCount = 256 << 10
    private static let pieceByteCount = 128 << 10

    private func pageRuns(isWanted: (Int) -> Bool) -> [PageRun] {
        var runs: [PageRun] = []
        var end = FileGeometry.headerByteCount
        for (number, entry) in footer.pages.enumerated() {
            let bytes = end..<Int(entry.end)
            end = bytes.upperBound
            let isRoomLeft = runs.last.map { $0.bytes.count + bytes.count <= Self.runByteCount } ?? false
            if !isRoomLeft { runs.append(PageRun(bytes: bytes.lowerBound..<end, pages: number..<number, wanted: [])) }
            let last = runs.count - 1
            runs[last].bytes = runs[last].bytes.lowerBound..<end
            runs[last].pages = runs[last].pages.lowerBound..<number + 1
            if isWanted(number) { runs[last].wanted.insert(number) }
        }
        return runs
    }

    /// The buffer stays with the thread, and grows to the largest run.
    private func damages(
        in run: PageRun, buffer: inout [UInt8], content: PageCheck
    ) -> [(page: Int, error: StoreError)] {
        var damages: [(page: Int, error: StoreError)] = []
        let first = run.pages.lowerBound
        if run.pages.count == 1, run.wanted.isEmpty, footer.pages[first].codec == .raw {
            do throws(StoreError) {
                try checkByPieces(first, of: run, buffer: &buffer)
            } catch {
                damages.append((first, error))
            }
            return damages
        }
        do throws(StoreError) {
            try read(run.bytes, into: &buffer)
            for number in run.pages {
                do throws(StoreError) {
                    let bytes = buffer.span.bytes.extracting(0..<run.bytes.count)
                    try check(number, in: bytes, of: run, content: content)
                } catch {
                    damages.append((number, error))
                }
            }
        } catch {
            damages.append((run.pages.lowerBound, error))
        }
        return damages
    }

    /// Checks a page of which only the checksum is wanted, through a buffer that stays in the core's cache.
    private func checkByPieces(_ number: Int, of run: PageRun, buffer: inout [UInt8]) throws(StoreError) {
        let entry = footer.pages[number]
        try verifyPadding(run.bytes.lowerBound..<Int(entry.offset))
        var hasher = ChecksumHasher(seed: entry.seed)
        var offset = Int(entry.offset)
        while offset < Int(entry.end) {
            let count = min(Self.pieceByteCount, Int(entry.end) - offset)
            try read(offset..<offset + count, into: &buffer)
            hasher.update(buffer.span.bytes.extracting(0..<count))
            offset += count
        }
        let checksum = hasher.checksum()
        guard checksum == entry.checksum else {
            throw .pageChecksum(path: path, location(of: number), expected: entry.checksum, found: checksum)
        }
    }

    private func check(_ number: Int, in bytes: RawSpan, of run: PageRun, content: PageCheck) throws(StoreError) {
        let entry = footer.pages[number]
        let previousEnd = number == run.pages.lowerBound ? run.bytes.lowerBound : Int(footer.pages[number - 1].end)
        let padding = previousEnd - run.bytes.lowerBound..<Int(entry.offset) - run.bytes.lowerBound
        let page = padding.upperBound..<padding.upperBound + Int(entry.storedLength)
        try expectZeros(bytes.extracting(padding), at: previousEnd)
        try expectChecksum(of: number, stored: bytes.extracting(page))
        let isWanted = run.wanted.contains(number)
        guard isWanted || entry.codec != .raw else { return }
        let payload = try payload(of: number, checked: bytes.extracting(page))
        if isWanted { try content(number, payload) }
    }

    private func collect(_ damages: inout [StoreError], _ body: () throws(StoreError) -> Void) {
        do throws(StoreError) { try body() } catch { damages.append(error) }
    }

    private func read(_ range: Range<Int>) throws(StoreError) -> [UInt8] {
        do {
            return try file.read(at: range.lowerBound, count: range.count)
        } catch {
            throw .file(error)
        }
    }

    /// Fills the beginning of the buffer, which grows if it must.
    private func read(_ range: Range<Int>, into buffer: inout [UInt8]) throws(StoreError) {
        if buffer.count < range.count { buffer = [UInt8](repeating: 0, count: max(range.count, Self.runByteCount)) }
        do throws(FileError) {
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            var piece = bytes._mutatingExtracting(0..<range.count)
            try file.read(at: range.lowerBound, into: &piece)
        } catch {
            throw .file(error)
        }
    }

    private func verifyPadding(_ range: Range<Int>) throws(StoreError) {
        let bytes = try read(range)
        try expectZeros(bytes.span.bytes, at: range.lowerBound)
    }

    private func expectZeros(_ bytes: RawSpan, at offset: Int) throws(StoreError) {
        for index in 0..<bytes.byteCount {
            let byte = unsafe bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self)
            guard byte == 0 else { throw .paddingNotZero(path: path, offset: offset + index, found: byte) }
        }
    }

    /// Checks header, footer and tail, and nothing between.
    func verifyEnds() throws(StoreError) {
        try verifyHeader()
        try verifyFooter()
    }

    private func verifyHeader() throws(StoreError) {
        try judging { try Self.compare(try Self.readHeader(file, magic: footer.header.magic), footer.header) }
    }

    /// Reads footer and tail anew: they may have been damaged since the file was opened.
    private func verifyFooter() throws(StoreError) {
        try judging { _ = try Self.readFooter(file, tail: identity.tail, magic: footer.header.magic) }
    }

    private func judging(_ body: () throws -> Void) throws(StoreError) {
        do {
            try body()
        } catch let error as FileError {
            throw .file(error)
        } catch let error as FormatError {
            throw .format(path: path, error)
        } catch {
            preconditionFailure("no other error is thrown here")
        }
    }
}
