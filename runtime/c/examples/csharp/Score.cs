// Scores grey noise through libstpm: dotnet run -- bottle.stpm
// libstpm.so or stpm.dll must be where the system looks for libraries (LD_LIBRARY_PATH, PATH).
using System;
using System.Runtime.InteropServices;

[StructLayout(LayoutKind.Sequential)]
struct StpmImage
{
    public IntPtr Pixels;
    public int Height, Width;
    public nint Stride;
    public int Format;
}

[StructLayout(LayoutKind.Sequential)]
struct StpmResult
{
    public IntPtr Map;
    public nuint MapCapacity;
    public IntPtr Regions;
    public nuint RegionCapacity;
    public nuint RegionCount;
    public double Threshold;
    public float Score;
    public int IsAnomalous;
    public IntPtr Rois;
    public nuint RoiCapacity, RoiCount;
}

static class Stpm
{
    public const int Grey = 0;

    [DllImport("stpm", EntryPoint = "stpm_open")]
    public static extern int Open(
        [MarshalAs(UnmanagedType.LPUTF8Str)] string path, IntPtr options, out IntPtr detector);

    [DllImport("stpm", EntryPoint = "stpm_run")]
    public static extern int Run(
        IntPtr detector, in StpmImage images, nuint count, ref StpmResult results);

    [DllImport("stpm", EntryPoint = "stpm_last_error")]
    public static extern IntPtr LastError(IntPtr detector);

    [DllImport("stpm", EntryPoint = "stpm_close")]
    public static extern int Close(IntPtr detector);
}

static class Program
{
    static int Main(string[] arguments)
    {
        const int side = 300;
        var pixels = new byte[side * side];
        new Random(0).NextBytes(pixels);
        var pinned = GCHandle.Alloc(pixels, GCHandleType.Pinned);
        var image = new StpmImage
        {
            Pixels = pinned.AddrOfPinnedObject(), Height = side, Width = side, Format = Stpm.Grey,
        };
        var result = new StpmResult();
        int status = Stpm.Open(arguments[0], IntPtr.Zero, out IntPtr detector);
        if (status == 0) status = Stpm.Run(detector, image, 1, ref result);
        Console.WriteLine(status == 0
            ? $"{(result.IsAnomalous != 0 ? "ANOMALOUS" : "ok")} {result.Score} {result.Threshold}"
            : Marshal.PtrToStringUTF8(Stpm.LastError(detector)));
        Stpm.Close(detector);
        pinned.Free();
        return status;
    }
}
