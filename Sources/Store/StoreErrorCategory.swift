import Files
import Format
import LMDB

/// What a caller can do about an error: the exit codes of the command line follow it.
public enum StoreErrorCategory: Sendable {
    /// The request or its input is not acceptable; nothing was changed.
    case refused
    /// Stored bytes are not as they were written.
    case damaged
    /// Disk, permission, memory, another writer.
    case environment
}

extension StoreError {
    /// The error's category.
    public var category: StoreErrorCategory {
        switch self {
        case .format, .page, .pageChecksum, .pageCompression, .paddingNotZero, .wrongStatistics, .wrongIndex,
            .duplicateIdentifier, .wrongNorm, .identifierLiveTwice, .identityDamaged, .catalogDamaged,
            .fileOfCatalogMissing, .schemaDiffers, .basisDamaged, .coordinatesDamaged:
            .damaged
        case .catalog(let error):
            switch error {
            case .damaged(_, _, _, _), .missing(_): .damaged
            default: .environment
            }
        case .file(let error):
            switch error {
            case .shortRead(_, _, _, _), .notRegularFile(_): .damaged
            default: .environment
            }
        case .compression, .storeNotWritable, .locked, .commitInDoubt, .writerEnded:
            .environment
        default:
            .refused
        }
    }
}
