// The on-disk layout of LMDB 0.9 on a 64-bit little-endian machine (mdb.c: MDB_page, MDB_meta, MDB_db, MDB_node).

/// Offsets and flags of the format.
enum PageLayout {
    static let headerBytes = 16
    static let nodeHeaderBytes = 8
    static let metaMagic: UInt32 = 0xBEEF_C0DE
    static let dataVersion: UInt32 = 1
    static let noPage = UInt64.max
    /// CURSOR_STACK: liblmdb overruns its own stack on deeper trees.
    static let maximumDepth = 32
    /// MDB_MAXKEYSIZE.
    static let maximumKeyBytes = 511

    static let branchFlag: UInt16 = 0x01
    static let leafFlag: UInt16 = 0x02
    static let overflowFlag: UInt16 = 0x04
    static let metaFlag: UInt16 = 0x08
    /// F_BIGDATA: the node's data is the number of the first page of an overflow run.
    static let bigDataFlag: UInt16 = 0x01
    /// MDB_INTEGERKEY, which the free list has and the main database must not have.
    static let integerKeyFlag: UInt16 = 0x08
}

/// Unaligned little-endian reads from a page; out-of-range offsets trap, so callers check against the page size first.
struct PageBytes {
    let bytes: [UInt8]

    func u16(_ offset: Int) -> UInt16 {
        UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8
    }

    func u32(_ offset: Int) -> UInt32 {
        UInt32(u16(offset)) | UInt32(u16(offset + 2)) << 16
    }

    func u64(_ offset: Int) -> UInt64 {
        UInt64(u32(offset)) | UInt64(u32(offset + 4)) << 32
    }
}

/// A tree's root record in a meta page (MDB_db).
struct TreeRecord: Hashable {
    static let byteCount = 48

    let pad: UInt32
    let flags: UInt16
    let depth: UInt16
    let branchPageCount: UInt64
    let leafPageCount: UInt64
    let overflowPageCount: UInt64
    let entryCount: UInt64
    let root: UInt64

    init(_ page: PageBytes, at offset: Int) {
        pad = page.u32(offset)
        flags = page.u16(offset + 4)
        depth = page.u16(offset + 6)
        branchPageCount = page.u64(offset + 8)
        leafPageCount = page.u64(offset + 16)
        overflowPageCount = page.u64(offset + 24)
        entryCount = page.u64(offset + 32)
        root = page.u64(offset + 40)
    }
}

/// One of the two meta pages: the roots of one committed state.
struct MetaPage: Hashable {
    /// Header plus MDB_meta.
    static let byteCount = 152

    let pageBytes: Int
    let freeTree: TreeRecord
    let mainTree: TreeRecord
    let lastPage: UInt64
    let transaction: UInt64

    /// Decodes and checks what liblmdb would use without asking; `number` is 0 or 1.
    init(_ bytes: [UInt8], number: UInt64, path: String) throws(LMDBError) {
        func require(_ condition: Bool, _ rule: String, _ found: @autoclosure () -> String) throws(LMDBError) {
            guard condition else { throw .damaged(path: path, page: number, rule: rule, found: found()) }
        }
        let page = PageBytes(bytes: bytes)
        try require(bytes.count >= MetaPage.byteCount, "a whole meta page", "\(bytes.count) bytes")
        try require(page.u64(0) == number, "its own page number", "\(page.u64(0))")
        try require(page.u16(10) == PageLayout.metaFlag, "the meta page flag", "flags \(page.u16(10))")
        try require(page.u32(16) == PageLayout.metaMagic, "LMDB's magic number", "\(page.u32(16))")
        guard page.u32(20) == PageLayout.dataVersion else {
            throw .unsupportedVersion(path: path, found: page.u32(20))
        }
        freeTree = TreeRecord(page, at: 40)
        mainTree = TreeRecord(page, at: 40 + TreeRecord.byteCount)
        lastPage = page.u64(136)
        transaction = page.u64(144)
        pageBytes = Int(freeTree.pad)
        // Page offsets inside a page are 16-bit.
        try require(
            (512...32768).contains(pageBytes) && pageBytes & (pageBytes - 1) == 0, "a page size", "\(pageBytes)")
        try require(freeTree.flags == PageLayout.integerKeyFlag, "free list flags 8", "\(freeTree.flags)")
        try require(mainTree.flags == 0, "main database flags 0", "\(mainTree.flags)")
        try require(lastPage >= 1 && lastPage < 1 << 40, "a last page number", "\(lastPage)")
        for tree in [freeTree, mainTree] {
            try require(
                Int(tree.depth) <= PageLayout.maximumDepth, "depth ≤ \(PageLayout.maximumDepth)", "\(tree.depth)")
            try require((tree.depth == 0) == (tree.root == PageLayout.noPage), "a root exactly if depth > 0", "none")
        }
    }
}
