import Files

/// Checks the pages of a committed state by reading them, before liblmdb may touch them through its mapping.
///
/// liblmdb 0.9 trusts its file: a damaged offset makes it read outside its map, abort, or return wrong data. What this walk
/// has accepted is a well-formed tree: every page in range, visited once, of the right kind and number; node offsets and
/// sizes tile the page; keys ascend within their parent's bounds; overflow runs are whole; the free list names no page that
/// is in use. It does not protect keys and values themselves: that is what checksums in the values are for.
/// O(pages) reads and memory.
struct PageWalker {
    private let file: ReadableFile
    private let meta: MetaPage
    /// Whole pages that the file really has.
    private let filePageCount: UInt64
    private var used: Set<UInt64> = [0, 1]

    init(file: ReadableFile, meta: MetaPage) {
        self.file = file
        self.meta = meta
        filePageCount = UInt64(file.byteCount / meta.pageBytes)
    }

    /// Checks the main tree, the free list tree and the free list.
    ///
    /// A commit that follows a state with pages frees at least the old root, under its own number: with
    /// `followsPages` that is required, because an older meta page with a raised number does not have it.
    mutating func checkAll(followsPages: Bool) throws(LMDBError) {
        try walk(meta.mainTree, isFreeList: false) { (_, _, _) in }
        let youngest = try checkFreeList()
        try require(
            !followsPages || youngest == meta.transaction, meta.transaction & 1,
            "pages freed by transaction \(meta.transaction)", "pages freed by \(youngest) at the latest")
    }

    /// Checks that the free list holds nothing younger than the meta page claims to be.
    ///
    /// Pages freed by a transaction are filed under its number, so a later number betrays a meta page of another age.
    mutating func checkFreeListAges() throws(LMDBError) {
        _ = try freeListRecords()
    }

    private struct FreeListRecord {
        let page: UInt64
        let key: UInt64
        let value: [UInt8]
    }

    private mutating func freeListRecords() throws(LMDBError) -> [FreeListRecord] {
        var records: [FreeListRecord] = []
        try walk(meta.freeTree, isFreeList: true) { (page, key, value) in
            records.append(FreeListRecord(page: page, key: PageBytes(bytes: key).u64(0), value: value))
        }
        for record in records {
            try require(
                record.key >= 1 && record.key <= meta.transaction, record.page,
                "free pages of a transaction ≤ \(meta.transaction)", "\(record.key)")
        }
        return records
    }

    /// Checks the free list tree and what it holds, against the pages already visited; gives its highest transaction.
    private mutating func checkFreeList() throws(LMDBError) -> UInt64 {
        var free: Set<UInt64> = []
        let records = try freeListRecords()
        for record in records {
            let list = PageBytes(bytes: record.value)
            try require(
                record.value.count >= 8 && record.value.count % 8 == 0, record.page, "a list of page numbers",
                "\(record.value.count) bytes")
            let count = list.u64(0)
            try require(
                count <= UInt64(record.value.count / 8 - 1), record.page, "as many page numbers as fit", "\(count)")
            var previous = UInt64.max
            for index in 0..<Int(count) {
                let page = list.u64(8 + 8 * index)
                try require(page < previous, record.page, "descending free page numbers", "\(page)")
                try require(page >= 2 && page <= meta.lastPage, record.page, "a free page in the file", "\(page)")
                try require(!used.contains(page), record.page, "a free page that is not in use", "\(page)")
                try require(free.insert(page).inserted, record.page, "each page free once", "\(page)")
                previous = page
            }
        }
        // A page taken and given back within one transaction may never have been written, so the file may end early;
        // anything else beyond its end is a truncation (or a wrong last page number).
        if filePageCount <= meta.lastPage {
            let missing = meta.lastPage - filePageCount + 1
            let unwritten = UInt64(free.count { $0 >= filePageCount })
            try require(
                missing == unwritten, filePageCount, "a file of \(meta.lastPage + 1) pages",
                "\(filePageCount) pages, \(unwritten) of the missing ones free")
        }
        return records.last?.key ?? 0
    }

    private func require(
        _ condition: Bool, _ page: UInt64, _ rule: @autoclosure () -> String, _ found: @autoclosure () -> String
    ) throws(LMDBError) {
        guard condition else { throw .damaged(path: file.path, page: page, rule: rule(), found: found()) }
    }

    private mutating func claim(_ page: UInt64, from parent: UInt64) throws(LMDBError) {
        try require(page >= 2 && page <= meta.lastPage, parent, "a child page in 2...\(meta.lastPage)", "\(page)")
        try require(used.insert(page).inserted, parent, "a child page named once", "\(page) again")
    }

    private func readPage(_ page: UInt64, count: UInt64 = 1) throws(LMDBError) -> PageBytes {
        try require(
            page < filePageCount && count <= filePageCount - page, page, "a page in the file",
            "\(filePageCount) pages")
        do {
            return PageBytes(bytes: try file.read(at: Int(page) * meta.pageBytes, count: Int(count) * meta.pageBytes))
        } catch {
            throw .file(error)
        }
    }

    /// What a walk counts, to be compared with the tree's own record.
    private struct Counts: Equatable {
        var branchPages: UInt64 = 0
        var leafPages: UInt64 = 0
        var overflowPages: UInt64 = 0
        var entries: UInt64 = 0
    }

    /// Visits one tree, passing (page, key, value) of each entry in key order; values are fetched for the free list only.
    private mutating func walk(
        _ tree: TreeRecord, isFreeList: Bool, entry: (UInt64, [UInt8], [UInt8]) -> Void
    ) throws(LMDBError) {
        var counts = Counts()
        if tree.depth > 0 {
            try claim(tree.root, from: meta.transaction & 1)
            try walkPage(
                tree.root, level: 1, depth: Int(tree.depth), lower: nil, upper: nil, isFreeList: isFreeList, &counts,
                entry: entry)
        }
        let expected = Counts(
            branchPages: tree.branchPageCount, leafPages: tree.leafPageCount, overflowPages: tree.overflowPageCount,
            entries: tree.entryCount)
        try require(counts == expected, meta.transaction & 1, "\(expected)", "\(counts)")
    }

    private mutating func walkPage(
        _ number: UInt64, level: Int, depth: Int, lower: [UInt8]?, upper: [UInt8]?, isFreeList: Bool,
        _ counts: inout Counts, entry: (UInt64, [UInt8], [UInt8]) -> Void
    ) throws(LMDBError) {
        let page = try readPage(number)
        let isLeaf = level == depth
        try require(page.u64(0) == number, number, "its own page number", "\(page.u64(0))")
        let flags = page.u16(10)
        try require(
            flags == (isLeaf ? PageLayout.leafFlag : PageLayout.branchFlag), number,
            isLeaf ? "a leaf at depth \(level)" : "a branch at depth \(level)", "flags \(flags)")
        let nodes = try nodes(of: page, number: number, isLeaf: isLeaf, isFreeList: isFreeList)
        if isLeaf { counts.leafPages += 1 } else { counts.branchPages += 1 }

        var previous = lower
        for (index, node) in nodes.enumerated() {
            // The first key of a branch stands for "everything below the second": liblmdb never looks at it.
            if isLeaf || index > 0 {
                if let previous {
                    // A leaf's first key may equal the separator above it; otherwise keys ascend strictly.
                    let mayBeEqual = index == 0
                    let order = compare(previous, node.key, isFreeList: isFreeList)
                    try require(order < 0 || (mayBeEqual && order == 0), number, "ascending keys", "node \(index)")
                }
                if let upper {
                    try require(
                        compare(node.key, upper, isFreeList: isFreeList) < 0, number, "keys below the next page's",
                        "node \(index)")
                }
                previous = node.key
            }
            if isLeaf {
                counts.entries += 1
                let value = try value(of: node, in: page, number: number, isFreeList: isFreeList, &counts)
                entry(number, node.key, value)
            } else {
                try claim(node.child, from: number)
                try walkPage(
                    node.child, level: level + 1, depth: depth, lower: index == 0 ? lower : node.key,
                    upper: index + 1 < nodes.count ? nodes[index + 1].key : upper, isFreeList: isFreeList, &counts,
                    entry: entry)
            }
        }
    }

    private struct Node {
        let key: [UInt8]
        let child: UInt64
        let dataOffset: Int
        let dataCount: Int
        let isBig: Bool
    }

    /// The nodes of a branch or leaf page, after checking that they tile the page exactly.
    private func nodes(
        of page: PageBytes, number: UInt64, isLeaf: Bool, isFreeList: Bool
    ) throws(LMDBError) -> [Node] {
        let (lower, upper) = (Int(page.u16(12)), Int(page.u16(14)))
        try require(
            lower >= PageLayout.headerBytes && lower % 2 == 0 && lower <= upper && upper <= meta.pageBytes, number,
            "bounds within the page", "\(lower), \(upper)")
        let count = (lower - PageLayout.headerBytes) / 2
        // liblmdb asserts two children on every branch but the free list's.
        let minimum = isLeaf || isFreeList ? 1 : 2
        try require(count >= minimum, number, "at least \(minimum) nodes", "\(count)")
        var nodes: [Node] = []
        nodes.reserveCapacity(count)
        var extents: [(start: Int, end: Int)] = []
        extents.reserveCapacity(count)
        for index in 0..<count {
            let offset = Int(page.u16(PageLayout.headerBytes + 2 * index))
            try require(
                offset >= upper && offset % 2 == 0 && offset + PageLayout.nodeHeaderBytes <= meta.pageBytes, number,
                "node \(index) within the page", "offset \(offset)")
            let low = UInt64(page.u16(offset)) | UInt64(page.u16(offset + 2)) << 16
            let flags = page.u16(offset + 4)
            let keyCount = Int(page.u16(offset + 6))
            let isBig = isLeaf && flags == PageLayout.bigDataFlag
            if isLeaf {
                try require(flags == 0 || isBig, number, "node \(index) with flags 0 or 1", "\(flags)")
            }
            if isLeaf || index > 0 {
                let isKeyLength =
                    isFreeList ? keyCount == 8 : (1...PageLayout.maximumKeyBytes).contains(keyCount)
                try require(isKeyLength, number, "node \(index) with a key", "\(keyCount) bytes")
            }
            let inlineCount = isLeaf ? (isBig ? 8 : Int(low)) : 0
            let end = offset + PageLayout.nodeHeaderBytes + keyCount + inlineCount
            try require(end <= meta.pageBytes, number, "node \(index) to end in the page", "\(end)")
            extents.append((offset, end + end % 2))
            let keyStart = offset + PageLayout.nodeHeaderBytes
            nodes.append(
                Node(
                    key: Array(page.bytes[keyStart..<keyStart + keyCount]), child: low | UInt64(flags) << 32,
                    dataOffset: keyStart + keyCount, dataCount: Int(low), isBig: isBig))
        }
        extents.sort { $0.start < $1.start }
        var position = upper
        for extent in extents {
            try require(extent.start == position, number, "nodes side by side", "offset \(extent.start)")
            position = extent.end
        }
        try require(position == meta.pageBytes, number, "nodes up to the page's end", "\(position)")
        return nodes
    }

    /// Claims a leaf node's overflow run, and fetches the value if the caller wants it.
    private mutating func value(
        of node: Node, in page: PageBytes, number: UInt64, isFreeList: Bool, _ counts: inout Counts
    ) throws(LMDBError) -> [UInt8] {
        guard node.isBig else {
            return isFreeList ? Array(page.bytes[node.dataOffset..<node.dataOffset + node.dataCount]) : []
        }
        let first = page.u64(node.dataOffset)
        try claim(first, from: number)
        let header = try readPage(first)
        try require(header.u64(0) == first, first, "its own page number", "\(header.u64(0))")
        try require(header.u16(10) == PageLayout.overflowFlag, first, "an overflow page", "flags \(header.u16(10))")
        let runCount = UInt64(header.u32(12))
        let needed = UInt64((PageLayout.headerBytes - 1 + node.dataCount) / meta.pageBytes + 1)
        try require(
            runCount >= needed && runCount <= meta.lastPage - first + 1, first,
            "an overflow run of at least \(needed) pages", "\(runCount)")
        for follower in first + 1..<first + runCount { try claim(follower, from: first) }
        counts.overflowPages += runCount
        // Reading the run proves that it lies in the file.
        let run = try readPage(first, count: needed)
        guard isFreeList else { return [] }
        return Array(run.bytes[PageLayout.headerBytes..<PageLayout.headerBytes + node.dataCount])
    }

    /// liblmdb's order: integers for the free list, bytes and then length for the main database.
    private func compare(_ a: [UInt8], _ b: [UInt8], isFreeList: Bool) -> Int {
        if isFreeList {
            let (x, y) = (PageBytes(bytes: a).u64(0), PageBytes(bytes: b).u64(0))
            return x < y ? -1 : (x == y ? 0 : 1)
        }
        if a.lexicographicallyPrecedes(b) { return -1 }
        return a == b ? 0 : 1
    }
}
