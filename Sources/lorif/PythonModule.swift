import Foundation
import Glibc

/// A command of the Python package, which this process becomes.
struct PythonModule {
    /// As in 'python3 -m NAME'.
    let name: String
    /// What pip installs it from, within a checkout.
    let source: String

    /// Becomes the interpreter: exit codes and signals are then its own. `help` is what can be said without the package.
    func run(_ arguments: [String], help: String) throws {
        let named = ProcessInfo.processInfo.environment["LORIF_PYTHON"] ?? ""
        let interpreter = named.isEmpty ? "python3" : named
        if arguments.contains(where: { $0 == "--help" || $0 == "-h" }), !isThere(interpreter) {
            standardOutput(help + "\n\n")
            return standardOutput(
                "The options are those of the Python package, which '\(interpreter)' lacks: pip install \(source)\n")
        }
        if let path = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") {
            setenv("LORIF_BIN", path, 1)
        }
        // The parser's handlers end with this program, what it ignores does not.
        for number in [SIGINT, SIGTERM, SIGPIPE, SIGXFSZ] { signal(number, SIG_DFL) }
        var pointers = ([interpreter, "-c", bootstrap] + arguments).map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        execvp(interpreter, pointers)
        let reason = String(cString: strerror(errno))
        throw CommandFailure(
            code: .environment,
            message: "the Python interpreter '\(interpreter)' cannot be started: \(reason); set LORIF_PYTHON to one "
                + "of at least 3.11 that has the package: pip install \(source)")
    }

    /// Whether the interpreter is there and has the package.
    private func isThere(_ interpreter: String) -> Bool {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [interpreter, "-c", search + "sys.exit(0 if is_there else 1)"]
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }

    /// Looks for the module. The working directory is not searched: it may hold a folder named lorif.
    private var search: String {
        """
        import importlib.util, runpy, sys
        sys.path[:1] = [] if sys.path[:1] == [''] else sys.path[:1]
        def found(name):
            try: return importlib.util.find_spec(name) is not None
            except ImportError: return False
        is_there = sys.version_info >= (3, 11) and found('\(name)')

        """
    }

    /// Starts the module, or says how to get it.
    private var bootstrap: String {
        search + """
            if not is_there:
                sys.stderr.write('lorif: ' + sys.executable + ' (Python %d.%d) ' % sys.version_info[:2] +
                    'lacks the package lorif (for Python 3.11 and later): install it with\\n  ' + sys.executable +
                    ' -m pip install ' + "\(source)" + '\\nor set LORIF_PYTHON to the interpreter that has it\\n')
                sys.exit(5)
            try: runpy.run_module('\(name)', run_name='__main__', alter_sys=True)
            except ImportError as error:
                sys.stderr.write('lorif: ' + str(error) + '\\n')
                sys.exit(5)
            """
    }
}
